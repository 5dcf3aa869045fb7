//! Clients at the workers where a case wants them. With `accept_balance = 0` the kernel decides who gets a connection, so connections are
//! opened until there are enough everywhere, and the rest are closed.

use crate::{Client, Fleet, SOON, wait_until};
use std::collections::HashMap;

/// Connections opened before looking where they are.
const BATCH: usize = 100;

/// `counts[i]` clients at worker `i`, in the order of the workers.
#[track_caller]
pub fn place(fleet: &Fleet, counts: &[usize], login: impl Fn() -> Client) -> Vec<Client> {
    let mut console = fleet.console();
    let mut placed: Vec<Vec<Client>> = counts.iter().map(|_| Vec::new()).collect();
    wait_until("enough clients at every worker", SOON * 3, || {
        let fresh: Vec<Client> = (0..BATCH).map(|_| login()).collect();
        let workers = workers_of_all(&mut console);
        for client in fresh {
            let worker = workers[&client.local_port()];
            if placed[worker].len() < counts[worker] {
                placed[worker].push(client);
            }
        }
        placed.iter().zip(counts).all(|(clients, &count)| clients.len() == count)
    });
    placed.into_iter().flatten().collect()
}

/// Clients' ports, and the worker that each is at: the high bits of the client's number.
fn workers_of_all(console: &mut Client) -> HashMap<u16, usize> {
    let clients = console.query("show clients");
    let ports = clients.column("port").into_iter().map(|port| port.parse().unwrap());
    let workers = clients.column("id").into_iter().map(|id| id.parse::<usize>().unwrap() >> 25);
    ports.zip(workers).collect()
}
