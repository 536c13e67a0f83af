//! Rebuilds the crate when a built-in data set changes: the macro that embeds the folder cannot say so itself on stable Rust.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=data");
}
