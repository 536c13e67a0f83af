//! The model that the server is compared with: what names hold, which changes make sense, and what each leaves when it is cut off.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::{Method, RequestBuilder};
use serde_json::json;

use crate::harness::client::form;
use crate::harness::{AdapterDirectory, Client};

/// The names that changes are about.
pub(super) const NAMES: [&str; 2] = ["one", "two"];
/// Contents of which versions are made.
pub(super) const FILES: usize = 4;

/// What a name holds; versions are positions among the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Adapter {
    pub(super) versions: BTreeSet<usize>,
    pub(super) active: usize,
    pub(super) previous: Option<usize>,
}

/// The names that are loaded.
pub(super) type Names = BTreeMap<&'static str, Adapter>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// `POST`: the name must be free.
    Create,
    /// `PUT`.
    Replace,
    /// `PUT` that leaves the active version as it is.
    Add,
    Activate,
    RollBack,
    RemoveVersion,
    Remove,
}

/// How often each is drawn where it makes sense. Removing names often would leave little to activate.
pub(super) const KINDS: [(Kind, u32); 7] = [
    (Kind::Create, 3),
    (Kind::Replace, 3),
    (Kind::Add, 3),
    (Kind::Activate, 3),
    (Kind::RollBack, 3),
    (Kind::RemoveVersion, 2),
    (Kind::Remove, 1),
];

#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    pub(super) kind: Kind,
    pub(super) name: &'static str,
    pub(super) file: usize,
}

impl Adapter {
    fn first(file: usize) -> Self {
        Self {
            versions: BTreeSet::from([file]),
            active: file,
            previous: None,
        }
    }

    fn with(&self, file: usize) -> Self {
        let mut versions = self.versions.clone();
        versions.insert(file);
        Self {
            versions,
            ..self.clone()
        }
    }

    fn activated(&self, file: usize) -> Self {
        Self {
            versions: self.versions.clone(),
            active: file,
            previous: Some(self.active),
        }
    }

    /// A rollback no longer leads to `file`.
    fn unreachable(&self, file: usize) -> Self {
        Self {
            previous: self.previous.filter(|previous| *previous != file),
            ..self.clone()
        }
    }

    fn without(&self, file: usize) -> Self {
        let mut left = self.unreachable(file);
        left.versions.remove(&file);
        left
    }
}

impl Change {
    /// Whether it would be answered with success and change something.
    pub(super) fn makes_sense(&self, names: &Names) -> bool {
        let Some(adapter) = names.get(self.name) else {
            return matches!(self.kind, Kind::Create | Kind::Replace | Kind::Add);
        };
        let (active, present) = (
            adapter.active == self.file,
            adapter.versions.contains(&self.file),
        );
        match self.kind {
            Kind::Create => false,
            Kind::Replace => !active,
            Kind::Add => !present,
            Kind::Activate => present && !active,
            Kind::RollBack => adapter.previous.is_some(),
            Kind::RemoveVersion => present && (!active || adapter.versions.len() == 1),
            Kind::Remove => true,
        }
    }

    /// What the name is before, after each step that a kill may be the last to let happen, and at the end.
    pub(super) fn steps(&self, before: Option<&Adapter>) -> Vec<Option<Adapter>> {
        let file = self.file;
        let Some(adapter) = before else {
            return vec![None, Some(Adapter::first(file))];
        };
        let after = match self.kind {
            Kind::Create => unreachable!("the name is taken"),
            Kind::Replace if adapter.versions.contains(&file) => vec![adapter.activated(file)],
            Kind::Replace => vec![adapter.with(file), adapter.with(file).activated(file)],
            Kind::Add => vec![adapter.with(file)],
            Kind::Activate => vec![adapter.activated(file)],
            Kind::RollBack => {
                let previous = adapter.previous.expect("a rollback has somewhere to go");
                vec![adapter.activated(previous)]
            }
            Kind::RemoveVersion if adapter.versions.len() > 1 => {
                vec![adapter.unreachable(file), adapter.without(file)]
            }
            Kind::RemoveVersion | Kind::Remove => return vec![Some(adapter.clone()), None],
        };
        let mut steps = vec![Some(adapter.clone())];
        steps.extend(after.into_iter().map(Some));
        // Forgetting that there is a way back to a version changes nothing where there was none.
        steps.dedup();
        steps
    }

    pub(super) fn request(&self, client: &Client, files: &[AdapterDirectory]) -> RequestBuilder {
        let (name, files) = (self.name, &files[self.file]);
        let version = files.version();
        let path = format!("/v1/adapters/{name}");
        match self.kind {
            Kind::Create => client
                .request(Method::POST, "/v1/adapters")
                .multipart(form(files).text("name", name)),
            Kind::Replace => client.request(Method::PUT, &path).multipart(form(files)),
            Kind::Add => client
                .request(Method::PUT, &format!("{path}?activate=false"))
                .multipart(form(files)),
            Kind::Activate => client
                .request(Method::POST, &format!("{path}/activate"))
                .json(&json!({"version": version})),
            Kind::RollBack => client.request(Method::POST, &format!("{path}/rollback")),
            Kind::RemoveVersion => {
                client.request(Method::DELETE, &format!("{path}?version={version}"))
            }
            Kind::Remove => client.request(Method::DELETE, &path),
        }
    }
}
