mod certificates;
mod chains;
mod contexts;
mod records;
mod tickets;
