//! What a server connection still has to answer, in the order it was sent.
//!
//! It decides when a server can be released (nothing outstanding and no batch left without its Sync), where an answer of our own
//! belongs in the stream, and what an error undoes: after an error in the extended protocol the server ignores everything up to the
//! next Sync, so those requests never get an answer (PostgreSQL documentation, "Extended Query").

use super::statements::StatementId;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// So many unanswered requests, and the client is not read until some are answered.
const MOST_OUTSTANDING: usize = 16 * 1024;

/// One request. `Hidden` ones are the pooler's own, their answers are swallowed; `Local` ones are never sent, the pooler answers them itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Query,
    FunctionCall,
    Sync,
    /// A Parse; for a tracked statement, which one and under which of the client's entries.
    Parse(Option<(StatementId, u32)>),
    /// A Bind; of a tracked statement, which one.
    Bind(Option<StatementId>),
    /// A Describe; of a tracked statement that is to be looked at, or of its portal, which one.
    Describe(Option<StatementId>),
    Execute,
    Close,
    /// A Parse of a statement that this server did not hold yet.
    HiddenParse(StatementId),
    /// A Close of the statement that was used least recently; which one, if it is still of use.
    HiddenClose(Option<StatementId>),
    /// A Describe of a statement, for us to compare; whether the client goes by the answer too.
    HiddenDescribe(StatementId, bool),
    /// A Bind or Describe of a statement that is out of date for its client: it fails, and the client is told why.
    Gone,
    /// SET or the reset query.
    HiddenQuery,
    /// A Sync of our own, or one whose batch is sent again.
    HiddenSync,
    /// A Parse of what the server holds already.
    LocalParse(u32),
    /// A Close of the client's name.
    LocalClose(u32),
    /// Not a request: here the client has ended a COPY of which the server has not yet said that it begins.
    CopyEnd,
}

/// What ReadyForQuery ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ended {
    /// A batch or query of the client's.
    Client,
    /// The pooler's own query.
    Hidden,
    /// The pooler's own Sync.
    HiddenSync,
    /// Nothing that was asked for.
    Unasked,
}

/// The queue.
#[derive(Clone, Default, Debug, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Outstanding {
    queue: VecDeque<Request>,
    /// Extended-protocol messages were sent that no Sync has closed.
    open_batch: bool,
    /// The server ignores everything until the Sync that has not been sent yet.
    ignoring: bool,
    /// How many of the queue are `Local`.
    local: usize,
    /// So many of the queue must be answered before it is certain which statements the server holds: an error may make it ignore a Parse or
    /// Close among them.
    uncertain: usize,
    /// So many of the queue must be answered before it is certain that the server has not forgotten them all.
    forgetting: usize,
    /// The batch that is open has such a Parse or Close.
    uncertain_batch: bool,
}

impl Outstanding {
    /// Nothing is owed and no batch is open: with transaction status `I` the server can be released.
    #[inline]
    pub(crate) fn is_settled(&self) -> bool {
        self.queue.is_empty() && !self.open_batch
    }

    /// Extended-protocol messages were sent that no Sync has closed.
    pub(super) fn has_open_batch(&self) -> bool {
        self.open_batch
    }

    /// Something was asked that the server has not answered.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.queue.is_empty()
    }

    /// The server ignores what is sent, up to the next Sync.
    #[inline]
    pub(crate) fn is_ignoring(&self) -> bool {
        self.ignoring
    }

    /// The client may ask for more: what it asks for is remembered until it is answered, and that must end somewhere.
    pub(crate) fn has_room(&self) -> bool {
        self.queue.len() < MOST_OUTSTANDING
    }

    /// The next request to be answered.
    #[inline]
    pub(crate) fn head(&self) -> Option<&Request> {
        self.queue.front()
    }

    /// There is a request that the pooler answers itself.
    #[inline]
    pub(super) fn has_local(&self) -> bool {
        self.local > 0
    }

    /// Whether a batch before this one makes the server hold or forget this statement, if it does not fail: what comes now must not rely on it.
    pub(super) fn is_uncertain_of(&self, id: StatementId) -> bool {
        let about = |request: &Request| match *request {
            Request::Parse(Some((about, _))) | Request::HiddenParse(about) | Request::HiddenClose(Some(about)) => about == id,
            _ => false,
        };
        self.forgetting > 0 || self.uncertain > 0 && self.queue.iter().take(self.uncertain).any(about)
    }

    /// Whether the Parse that added `serial` is unanswered, and its batch is closed.
    pub(super) fn ends_a_batch_behind(&self, serial: u32) -> bool {
        let is_it = |request: &&Request| match **request {
            Request::Parse(Some((_, added))) | Request::LocalParse(added) => added == serial,
            _ => false,
        };
        let mut behind = self.queue.iter().skip_while(|request| !is_it(request));
        behind.any(|request| matches!(request, Request::Sync))
    }

    /// Whether there is any such statement.
    pub(super) fn is_uncertain(&self) -> bool {
        self.uncertain > 0 || self.forgetting > 0
    }

    /// What was pushed last may make the server forget all its statements.
    pub(super) fn may_forget_all(&mut self) {
        self.forgetting = self.queue.len();
    }

    /// The server may yet forget all its statements.
    pub(super) fn is_forgetting(&self) -> bool {
        self.forgetting > 0
    }

    /// What this batch makes the server hold or forget is certain only when it has been answered.
    pub(super) fn changes_statements(&mut self) {
        self.uncertain_batch = true;
    }

    /// A request was sent (or, for a local one, taken on).
    #[inline]
    pub(crate) fn push(&mut self, request: Request) {
        match request {
            Request::Sync | Request::HiddenSync => {
                self.open_batch = false;
                self.ignoring = false;
            }
            Request::Query | Request::FunctionCall | Request::HiddenQuery | Request::CopyEnd => {}
            Request::LocalParse(_) | Request::LocalClose(_) => {
                self.open_batch = true;
                self.local += 1;
            }
            _ => self.open_batch = true,
        }
        self.queue.push_back(request);
        if matches!(request, Request::Sync | Request::HiddenSync) && std::mem::take(&mut self.uncertain_batch) {
            self.uncertain = self.queue.len();
        }
    }

    /// The server has answered the head, if it is one that `answers` fits.
    #[inline]
    pub(crate) fn answered(&mut self, answers: impl FnOnce(&Request) -> bool) -> Option<Request> {
        if !answers(self.head()?) {
            return None;
        }
        let head = self.pop();
        self.drop_copy_ends();
        head
    }

    /// Takes a local request off the head.
    #[inline]
    pub(crate) fn take_local(&mut self) -> Option<Request> {
        if self.local == 0 {
            return None;
        }
        let head = self.answered(|r| matches!(r, Request::LocalParse(_) | Request::LocalClose(_)))?;
        self.local -= 1;
        Some(head)
    }

    /// Every request in the queue is one the server knows nothing of, so no answer of its own will come to trigger ours.
    pub(crate) fn only_local(&self) -> bool {
        self.local > 0 && self.local == self.queue.len()
    }

    /// ReadyForQuery: all up to the request that it ends is done. What is left over before that goes to `undone`, the last one first.
    #[inline]
    pub(crate) fn ready(&mut self, undone: impl FnMut(Request)) -> Ended {
        let ends = |r: &Request| {
            matches!(r, Request::Sync | Request::Query | Request::FunctionCall | Request::HiddenQuery | Request::HiddenSync)
        };
        if !self.head().is_some_and(ends) {
            let end = self.queue.iter().position(ends).unwrap_or(self.queue.len());
            self.undo(end, undone);
        }
        let ended = self.pop();
        self.drop_copy_ends();
        match ended {
            None => Ended::Unasked,
            Some(Request::HiddenQuery) => Ended::Hidden,
            Some(Request::HiddenSync) => Ended::HiddenSync,
            Some(_) => Ended::Client,
        }
    }

    /// ErrorResponse: in the extended protocol the head has failed and all behind it up to the next Sync is ignored; each of them goes to
    /// `undone`, the last one first: what a later one did to what an earlier one had done is undone before that.
    pub(crate) fn failed(&mut self, undone: impl FnMut(Request)) {
        if matches!(self.head(), None | Some(Request::Query | Request::FunctionCall | Request::HiddenQuery)) {
            return;
        }
        let end = self.queue.iter().position(|request| matches!(request, Request::Sync | Request::HiddenSync));
        self.undo(end.unwrap_or(self.queue.len()), undone);
        self.ignoring |= end.is_none();
    }

    /// CopyDone or CopyFail was sent before the server has said that it takes data, if it ever does.
    pub(crate) fn copy_ended_early(&mut self) {
        if self.queue.iter().any(|r| matches!(r, Request::Execute | Request::Query)) {
            self.push(Request::CopyEnd);
        }
    }

    /// CopyInResponse: the server ignores Sync until the copy ends, so those already sent behind the Execute get no ReadyForQuery. Gives
    /// whether it takes data from now on: the end of the copy may be on its way already.
    pub(crate) fn copy_in_started(&mut self) -> bool {
        while matches!(self.head(), Some(Request::Execute)) && self.queue.get(1) == Some(&Request::Sync) {
            self.remove_second();
            // Behind the end of the copy there may be one that counts.
            self.open_batch |= !self.queue.contains(&Request::Sync);
        }
        let ended = self.queue.get(1) == Some(&Request::CopyEnd);
        if ended {
            self.remove_second();
        }
        !ended
    }

    fn remove_second(&mut self) {
        self.queue.remove(1);
        // It was one of those, or there were none but the first.
        self.uncertain -= usize::from(self.uncertain > 1);
        self.forgetting -= usize::from(self.forgetting > 1);
    }

    /// So many have left the front of the queue.
    #[inline]
    fn gone(&mut self, count: usize) {
        self.uncertain = self.uncertain.saturating_sub(count);
        self.forgetting = self.forgetting.saturating_sub(count);
    }

    #[inline]
    fn drop_copy_ends(&mut self) {
        while matches!(self.head(), Some(Request::CopyEnd)) {
            self.pop();
        }
    }

    #[inline]
    fn pop(&mut self) -> Option<Request> {
        self.gone(1);
        self.queue.pop_front()
    }

    /// Takes the batch at the head out: it has failed and is to be sent again. Only the end of its failure is still waited for.
    pub(super) fn take_batch(&mut self) -> Vec<Request> {
        let end = self.queue.iter().position(|request| *request == Request::Sync);
        let batch: Vec<_> = self.queue.drain(..end.map_or(0, |end| end + 1)).collect();
        self.gone(batch.len());
        self.queue.push_front(Request::HiddenSync);
        batch
    }

    /// Takes out the first `count`.
    fn undo(&mut self, count: usize, mut undone: impl FnMut(Request)) {
        self.gone(count);
        for request in self.queue.drain(..count).rev() {
            self.local -= usize::from(matches!(request, Request::LocalParse(_) | Request::LocalClose(_)));
            undone(request);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(requests: &[Request]) -> Outstanding {
        let mut o = Outstanding::default();
        for &request in requests {
            o.push(request);
        }
        o
    }

    #[test]
    fn a_batch_without_sync_keeps_the_server() {
        let mut o = queue(&[Request::Parse(None)]);
        o.answered(|r| matches!(r, Request::Parse(_)));
        assert!(!o.is_settled());
        o.push(Request::Sync);
        assert_eq!(o.ready(|_| ()), Ended::Client);
        assert!(o.is_settled());
    }

    #[test]
    fn an_error_undoes_all_up_to_the_sync() {
        let mut o = queue(&[Request::Bind(None), Request::LocalParse(7), Request::Execute, Request::Sync, Request::Query]);
        let mut undone = Vec::new();
        o.failed(|r| undone.push(r));
        assert_eq!(undone, [Request::Execute, Request::LocalParse(7), Request::Bind(None)]);
        assert!(!o.is_ignoring());
        assert_eq!(o.ready(|_| ()), Ended::Client);
        assert_eq!(o.head(), Some(&Request::Query));
    }

    #[test]
    fn without_a_sync_the_server_ignores_what_follows() {
        let mut o = queue(&[Request::Bind(None), Request::Query]);
        o.failed(|_| ());
        assert!(o.is_ignoring() && !o.is_settled());
        o.push(Request::Sync);
        assert!(!o.is_ignoring());
        assert_eq!(o.ready(|_| ()), Ended::Client);
        assert!(o.is_settled());
    }

    #[test]
    fn a_failed_simple_query_ignores_nothing() {
        let mut o = queue(&[Request::Query, Request::Query]);
        o.failed(|_| panic!("nothing is undone"));
        assert_eq!(o.ready(|_| ()), Ended::Client);
        assert_eq!(o.head(), Some(&Request::Query));
    }

    #[test]
    fn a_sync_sent_before_copy_data_is_not_answered() {
        // libpq: Parse Bind Describe Execute Sync, then CopyData…, CopyDone, Sync: two Syncs, one ReadyForQuery.
        let mut o = queue(&[Request::Execute, Request::Sync]);
        o.copy_in_started();
        o.push(Request::Sync);
        o.answered(|r| *r == Request::Execute);
        assert_eq!(o.ready(|_| ()), Ended::Client);
        assert!(o.is_settled());
    }
}
