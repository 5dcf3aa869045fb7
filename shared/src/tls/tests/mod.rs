mod certificates;
mod contexts;
mod records;
