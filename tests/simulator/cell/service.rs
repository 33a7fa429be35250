//! An agent that is taken out of service, and brought back by a person.

use std::time::Duration;

use greenroom::store::{StoreError, StoredStatus};

use super::{Cell, Phase};
use crate::{
    node::{Process, Then, Timer},
    op::{Answer, Op},
    world::World,
};

impl Process {
    /// It has crashed too often: keeps that, and parks what waits for it.
    pub fn stop(&mut self, world: &mut World, key: &'static str, serial: u64) {
        let Some(cell) = self.cell(key, serial) else { return };
        let op = Op::SetStatus(key, cell.epoch, StoredStatus::Stopped);
        self.call(world, op, Then::Stopped { key, serial });
        self.pump(world, key);
    }

    pub fn stopped(&mut self, world: &mut World, key: &'static str, serial: u64, answer: Answer) {
        let Some(cell) = self.cell(key, serial).filter(|cell| cell.phase == Phase::Stopped) else { return };
        match answer {
            Ok(_) => self.park(world, key, true),
            Err(StoreError::Refused(_)) => {
                cell.phase = Phase::Asking;
                self.ask_again(world, key, serial);
            }
            Err(_) => self.wake(world, Duration::from_millis(100), Timer::Stop { key, serial }),
        }
    }

    /// A person has a stopped agent run again.
    pub fn open(&mut self, world: &mut World, key: &'static str) {
        if self.epoch(key) == 0 {
            return;
        }
        let Some(cell) = self.cells.get_mut(key) else {
            self.cells.insert(key, Cell::new());
            world.ledger.pardons(self.me.pid, key);
            return self.restore(world, key);
        };
        let serial = cell.serial;
        match cell.phase {
            Phase::Stopped if cell.flight.is_none() => self.open_again(world, key, serial),
            Phase::Active if world.ledger.has_parked(&world.store) => self.park(world, key, false),
            _ => {}
        }
    }

    pub fn open_again(&mut self, world: &mut World, key: &'static str, serial: u64) {
        let Some(cell) = self.cell(key, serial) else { return };
        let op = Op::SetStatus(key, cell.epoch, StoredStatus::Normal);
        self.call(world, op, Then::Opened { key, serial });
    }

    pub fn opened(&mut self, world: &mut World, key: &'static str, serial: u64, answer: Answer) {
        let Some(cell) = self.cell(key, serial).filter(|cell| cell.phase == Phase::Stopped) else { return };
        match answer {
            Ok(_) => {
                cell.budget.reset();
                cell.streak = 0;
                world.ledger.pardons(self.me.pid, key);
                self.restore(world, key);
                self.park(world, key, false);
            }
            Err(StoreError::Refused(_)) => {
                cell.phase = Phase::Asking;
                self.ask_again(world, key, serial);
            }
            Err(_) => self.wake(world, Duration::from_millis(100), Timer::Open { key, serial }),
        }
    }
}
