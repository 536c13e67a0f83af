//! Everything that must hold of any bucket: here of one in memory, in `s3_tests` of one behind a server that speaks S3.

use object_store::memory::InMemory;

use super::testing::{Open, Server};
use super::{contents_tests, pointer_tests, version_tests, *};

fn in_memory(test: fn(Open<'_>)) {
    let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    test(&|| Server::over(Arc::clone(&memory), "lora/prod"));
}

macro_rules! of_any_bucket {
    ($($file:ident::$test:ident,)*) => {
        /// The tests by name.
        pub(super) const TESTS: &[(&str, fn(Open<'_>))] = &[$((stringify!($test), $file::$test),)*];

        $(#[test]
        fn $test() {
            in_memory($file::$test);
        })*
    };
}

of_any_bucket! {
    version_tests::what_one_stores_another_reads,
    version_tests::a_large_file_goes_in_parts,
    version_tests::what_is_whole_stays,
    version_tests::names_and_versions_are_checked,
    version_tests::damage_is_found_and_set_aside,
    version_tests::a_name_is_removed_and_comes_back,
    version_tests::a_version_is_removed_unless_pointed_at,
    pointer_tests::pointers_are_compared,
    pointer_tests::of_two_servers_one_wins,
    pointer_tests::pointing_and_removing_never_part,
    contents_tests::contents_tell_what_is_passed_over,
    contents_tests::what_the_killed_left_goes_after_a_while,
}
