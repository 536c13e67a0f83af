//! What is learnt about an action while it is handled: kept beside the task that handles the request, so that whoever changes an
//! adapter's pointer need not know of requests. Outside of an admin action nothing is kept.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;

tokio::task_local! {
    static NOTE: Rc<RefCell<Note>>;
}

/// What is known about an action.
#[derive(Debug, Default)]
pub struct Note {
    /// The id of the key.
    pub key: Option<String>,
    /// The code of the refusal.
    pub code: Option<&'static str>,
    /// The adapter, data set or evaluation.
    pub subject: Option<String>,
    /// The version before.
    pub before: Option<String>,
    /// The version after, once something has changed.
    pub after: Option<Option<String>>,
}

/// Runs what handles a request; what it notes goes into `note`.
pub(super) async fn keep<T>(note: Rc<RefCell<Note>>, handling: impl Future<Output = T>) -> T {
    NOTE.scope(note, handling).await
}

/// The key of the request.
pub fn key(id: &str) {
    change(|note| note.key = Some(id.to_owned()));
}

/// The request is refused.
pub fn refused(code: &'static str) {
    change(|note| note.code = Some(code));
}

/// What the action is about, and the version it has; the first word counts.
pub fn about(subject: &str, version: Option<&str>) {
    change(|note| {
        if note.subject.is_none() {
            note.subject = Some(subject.to_owned());
            note.before = version.map(str::to_owned);
        }
    });
}

/// The version that the action is about was one and is another; `None` is that there is none.
pub fn changed(before: Option<&str>, after: Option<&str>) {
    change(|note| {
        note.before = before.map(str::to_owned);
        note.after = Some(after.map(str::to_owned));
    });
}

fn change(change: impl FnOnce(&mut Note)) {
    // No admin action is being handled here; there is nobody to tell.
    let _ = NOTE.try_with(|note| change(&mut note.borrow_mut()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_noted_while_a_request_is_handled_is_kept_and_nothing_else() {
        about("nobody", None);
        let note = Rc::default();
        let handling = async {
            about("tone", Some("1"));
            about("other", Some("9"));
            tokio::task::yield_now().await;
            changed(Some("1"), Some("2"));
            7
        };
        assert_eq!(keep(Rc::clone(&note), handling).await, 7);
        let note = note.take();
        assert_eq!(note.subject.as_deref(), Some("tone"));
        assert_eq!(note.before.as_deref(), Some("1"));
        assert_eq!(note.after, Some(Some("2".to_owned())));
    }
}
