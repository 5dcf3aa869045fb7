//! Handing the fleet to another image, in this process.

use super::Engine;
use crate::estate::{self, Estate, KeptSlot, KeptWorker};
use crate::fleet::{Action, Event, Fleet, Resumed};
use crate::gate::Closed;
use crate::listen;
use crate::luggage::{Load, Luggage};
use crate::office::Input;
use crate::parlour::Parlour;
use crate::upgrade::{Arguments, Binary, ask_binary};
use shared::config::Config;
use shared::shm::Census;
use shared::sys::{guard, inherited, process, spawn};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

impl Engine {
    /// Asks a binary whether it can take the fleet over, in a thread.
    pub(super) fn preflight(&mut self, binary: Option<PathBuf>) -> Option<Event> {
        self.binary = None;
        self.preflights += 1;
        let number = self.preflights;
        let path = binary.unwrap_or_else(|| self.parts.setup.image.clone());
        // What the threads hold is not needed for that, and they move.
        let census = Some(self.parts.office.shm.census());
        let written = self.with_estate(census, Parlour::default(), &Luggage::default(), |estate, load| estate::write(estate, load));
        let given = written.and_then(|estate| Ok((estate, self.parts.own.memory.try_clone()?)));
        let input = self.parts.input.clone();
        let begun = given.and_then(|(estate, memory)| {
            let ask = move || {
                let _ = input.send(Input::Preflighted(number, ask_binary(path, &estate, &memory)));
            };
            std::thread::Builder::new().name("preflight".into()).spawn(ask)
        });
        let failed = |error: io::Error| Event::Preflighted(Err(format!("nobody can be asked: {}", listen::reason(&error))));
        begun.err().map(failed)
    }

    pub(super) fn preflighted(&mut self, number: u64, outcome: Result<Binary, String>) {
        if number != self.preflights {
            // It was cancelled, and another one asked.
            return;
        }
        let outcome = outcome.map(|binary| self.binary.insert(binary).heir());
        self.event(Event::Preflighted(outcome));
    }

    /// Nothing more is taken from outside, and what was taken is dealt with. If the fleet still wants to, it leaps; else all goes on.
    pub(super) fn stand_still(&mut self) -> Option<Event> {
        if self.stands_still {
            // It is what is dealt with below that leads here again.
            return None;
        }
        let office = Arc::clone(&self.parts.office);
        let closed = office.gate.close();
        self.stands_still = true;
        self.take_all();
        self.stands_still = false;
        for action in self.fleet.handle(super::now(), Event::Still) {
            if action == Action::Leap {
                return Some(self.leap(&closed));
            }
            self.carry_out(action);
        }
        None
    }

    /// Deals with all that has come.
    fn take_all(&mut self) {
        while let Ok(input) = self.parts.inputs.try_recv() {
            self.take(input);
        }
    }

    /// Executes the binary that was asked. What is returned follows if that cannot be.
    fn leap(&mut self, closed: &Closed<'_>) -> Event {
        let gone_on = |reason: String| Event::Resumed(Resumed::Back(reason));
        let Some(binary) = self.binary.take() else { return gone_on("the new binary is not there any more".to_owned()) };
        self.image_before = Some(std::mem::replace(&mut self.parts.setup.image, binary.path.clone()));
        let error = match File::open("/proc/self/exe") {
            Ok(old) => {
                let census = binary.strange.then(|| self.parts.office.shm.census());
                self.execute(closed, census, binary.file.as_fd(), Some(&old.into()), None)
            }
            Err(error) => error,
        };
        self.come_back();
        gone_on(format!("{} cannot be executed: {}", binary.path.display(), listen::reason(&error)))
    }

    /// Executes the image before this one. What is returned follows if that cannot be.
    pub(super) fn roll_back(&mut self, reason: String) -> Event {
        let gone_on = |reason: String| Event::Resumed(Resumed::Back(reason));
        let Some(way_back) = self.way_back.take() else { return gone_on(reason) };
        log::error!("UPGRADE: the version before is brought back: {reason}");
        let office = Arc::clone(&self.parts.office);
        let closed = office.gate.close();
        self.take_all();
        let error = match way_back.outdate() {
            Ok(()) => self.execute(&closed, None, way_back.old(), None, Some(reason.clone())),
            Err(error) => error,
        };
        way_back.close();
        self.settle();
        gone_on(format!("{reason}; and the version before cannot be executed: {}", listen::reason(&error)))
    }

    /// The next upgrade is to what is now where the image before was found.
    pub(super) fn come_back(&mut self) {
        if let Some(image) = self.image_before.take() {
            self.parts.setup.image = image;
        }
    }

    /// Executes an image that goes on with what the fleet is made of now. Comes back only with an error.
    fn execute(
        &self,
        closed: &Closed<'_>,
        census: Option<Census>,
        image: BorrowedFd<'_>,
        old: Option<&OwnedFd>,
        reason: Option<String>,
    ) -> io::Error {
        let mut luggage = Luggage::default();
        let workers = self.workers.iter().flatten().map(|worker| (worker.owner, &worker.control));
        let parlour = self.parts.office.park(closed, workers, &mut luggage);
        self.with_estate(census, parlour, &luggage, |estate, load| {
            let manifest = match estate::write(estate, load) {
                Ok(manifest) => manifest,
                Err(error) => return error,
            };
            let more = [Some(manifest.as_fd()), old.map(AsFd::as_fd)].into_iter().flatten();
            let inherited: Vec<BorrowedFd<'_>> = load.descriptors().iter().copied().chain(more).collect();
            let arguments = Arguments { manifest: manifest.as_raw_fd(), old: old.map(AsRawFd::as_raw_fd), reason };
            let error = match close_on_exec(&inherited, false) {
                Ok(()) => guard::execute(image, &arguments.to_strings()),
                Err(error) => error,
            };
            // They are open, so this cannot fail where the first did not.
            let _ = close_on_exec(&inherited, true);
            error
        })
    }

    /// There is no image to go back to any more, and none that is to inherit what this one has.
    pub(super) fn settle(&mut self) {
        if let Some(way_back) = self.way_back.take() {
            way_back.close();
        }
        self.image_before = None;
        if let Err(error) = spawn::close_on_exec_from(inherited::FIRST) {
            log::warn!("a descriptor stays open for programs that this one executes: {}", listen::reason(&error));
        }
        self.memory_before = None;
    }

    /// What the fleet is made of, and all descriptors of it.
    fn with_estate<T>(
        &self,
        census: Option<Census>,
        parlour: Parlour,
        luggage: &Luggage,
        act: impl FnOnce(&Estate<&Fleet, &Config>, &Load<'_>) -> T,
    ) -> T {
        let (config, inboxes, mut load) = (self.parts.office.config(), self.parts.own.inboxes.ends(), Load::of(luggage));
        let estate = Estate { census, ..self.estate(&config, &inboxes, parlour, &mut load) };
        act(&estate, &load)
    }

    fn estate<'a>(
        &'a self,
        config: &'a Config,
        inboxes: &'a [Arc<OwnedFd>],
        parlour: Parlour,
        load: &mut Load<'a>,
    ) -> Estate<&'a Fleet, &'a Config> {
        let parts = &self.parts;
        let slots = parts.own.inbox_ends.iter().zip(inboxes).zip(&self.workers);
        let slots = slots.map(|((receiving, sending), worker)| KeptSlot {
            receiving: load.add(receiving.as_fd()),
            sending: load.add(sending.as_fd()),
            worker: worker.as_ref().map(|worker| KeptWorker {
                owner: worker.owner,
                pid: worker.process.pid(),
                control: load.add(worker.control.as_fd()),
                held: worker.process.held().map(|process| load.add(process)),
            }),
        });
        let slots = slots.collect();
        Estate {
            by: crate::NAME.to_owned(),
            config,
            generation: self.generation,
            fleet: &self.fleet,
            asks: self.asks.iter().map(|(ask, (session, _))| (*ask, *session)).collect(),
            last_ask: self.last_ask,
            memory: load.add(self.memory_before.as_ref().unwrap_or(&parts.own.memory).as_fd()),
            census: None,
            given_back: self.memory_before.is_some(),
            slots,
            listeners: parts.own.listeners.keep(load),
            log_file: parts.setup.log_file.as_ref().map(|file| load.add(file.as_fd())),
            warned: parts.setup.warned.clone(),
            stderr: parts.setup.stderr,
            verbose: parts.setup.verbose,
            mock_secret: self.mock_secret,
            ticket_key_since: self.ticket_key_since,
            image: parts.setup.image.clone(),
            image_before: self.image_before.clone(),
            control_dir: parts.setup.control_dir.as_ref().map(|directory| directory.keep(load)),
            parlour,
        }
    }
}

fn close_on_exec(fds: &[BorrowedFd<'_>], close: bool) -> io::Result<()> {
    fds.iter().try_for_each(|fd| process::set_close_on_exec(fd, close))
}
