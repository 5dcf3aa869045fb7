//! A fleet whose supervisor has died goes on under this one.
//!
//! Workers that serve are members, up to the number that there is to be; then those that were on their way out, which stay, and slots whose worker has
//! died, which are filled. What the dead supervisor was in the middle of is over: a RESTART, with however many workers it has left, and whoever waited for
//! an answer has seen its session end. What it had said to some workers and not to others is told to all. Then the configuration file is read, as by a
//! RELOAD: workers that had put a new configuration in force when it died and those that had not agree again.

use super::Fleet;
use super::event::{Action, Notice, Survivors};
use super::listening::Listening;
use super::lives::{Life, SlotState};
use super::orders::Orders;
use super::reload::Change;
use log::Level;
use shared::control::ToWorker;
use shared::ids::Slot;
use std::collections::BTreeSet;

impl Fleet {
    /// Instead of a start. The fleet was made with as many slots as there are.
    pub(super) fn adopt(&mut self, survivors: Survivors) {
        let Survivors { wanted, workers, listening, marks, last_order, last_incarnation, keys, welcomes, news, orphans } =
            survivors;
        self.reports.begin(self.now);
        (self.wanted, self.marks, self.orders) = (wanted, marks, Orders::after(last_order));
        self.last_incarnation = self.last_incarnation.max(last_incarnation);
        for keys in keys {
            self.keys.learn(keys);
        }
        self.welcomes.extend(welcomes.into_iter().map(|welcome| ((welcome.database.clone(), welcome.user.clone()), welcome)));
        for database in orphans {
            self.orphans.add(database);
        }
        for worker in &workers {
            self.slots[worker.owner.slot.index()] = SlotState::adopted(worker, self.now);
        }
        self.members = workers.iter().filter(|worker| !worker.leaving).map(|worker| worker.owner.slot).collect();
        self.choose_members();
        let marks = self.marks.clone();
        self.broadcast(&ToWorker::Adopted { marks });
        for message in &news {
            self.broadcast(message);
        }
        self.keep_who_leaves();
        for (of, holders) in listening.into_iter().enumerate() {
            self.find_listener(Slot(of as u8), holders);
        }
        self.settle_listening();
        for slot in self.members.clone() {
            if matches!(self.slots[slot.index()].life, Life::Vacant { start_at: None }) {
                self.spawn(slot);
            }
        }
        self.dismiss();
        let pids: Vec<String> = workers.iter().map(|worker| worker.pid.to_string()).collect();
        self.log(
            Level::Info,
            format!("process up: {}, going on with the workers of a supervisor that has died: {}", self.name, pids.join(", ")),
        );
        self.up = true;
        self.out.push(Action::Notify(Notice::Ready));
        if self.marks.draining {
            self.log(Level::Warn, "the fleet was being drained and goes on with that, at its own pace and without a deadline");
            self.begin_drain(None, None, None);
        }
        self.request(Change::File, None);
    }

    /// Of those that accept from the listeners of `of`, one goes on with it: its own worker, else one that stays.
    fn find_listener(&mut self, of: Slot, holders: Option<BTreeSet<Slot>>) {
        let Some(holders) = holders else {
            self.listening[of.index()] = Listening::none(of);
            return;
        };
        let staying = holders.iter().find(|slot| self.stays(**slot));
        let by = holders.get(&of).filter(|own| self.stays(**own)).or(staying).or(holders.first()).copied().unwrap_or(of);
        self.listening[of.index()] = Listening::at(by);
        for other in holders.into_iter().filter(|slot| *slot != by) {
            self.tell_listener(other, ToWorker::Unlisten { of });
        }
    }
}
