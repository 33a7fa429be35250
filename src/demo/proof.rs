//! The proof: the agents' report compared with a recount.

use serde_json::Value;

use super::{ledger::Balance, recount::Recount, screen::thousands};

/// What the agents say.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub files: u64,
    pub bytes: u64,
    pub words: u64,
    pub done: u64,
    pub failed: u64,
    pub pending: u64,
}

impl Counts {
    pub fn of(report: &Value) -> Self {
        let number = |name| report.get(name).and_then(Value::as_u64).unwrap_or(0);
        Self {
            files: number("files"),
            bytes: number("bytes"),
            words: number("words"),
            done: number("done"),
            failed: number("failed"),
            pending: number("pending"),
        }
    }
}

/// All that is compared.
pub(super) struct Proof {
    pub agents: Counts,
    pub recount: Recount,
    pub balance: Balance,
    pub kills: u32,
    pub panics: u32,
    /// Whether the agent that panicked has the state that it had before.
    pub restored: bool,
}

impl Proof {
    /// Whether the agents are right.
    pub fn holds(&self) -> bool {
        let Counts { files, bytes, words, failed, pending, .. } = self.agents;
        let same = Recount { files, bytes, words } == self.recount;
        same && failed == 0
            && pending == 0
            && self.balance.lost == 0
            && self.balance.twice == 0
            && self.restored
    }

    /// As a table.
    pub fn table(&self) -> String {
        let mut lines = vec![format!("{:24}{:>16}{:>16}", "", "agents", "recount")];
        for (what, agents, recount) in [
            ("files", self.agents.files, self.recount.files),
            ("words", self.agents.words, self.recount.words),
            ("bytes", self.agents.bytes, self.recount.bytes),
        ] {
            let verdict = if agents == recount { "same" } else { "DIFFERENT" };
            lines.push(format!("{what:24}{:>16}{:>16}  {verdict}", thousands(agents), thousands(recount)));
        }
        let restored = if self.restored { "state restored" } else { "STATE NOT RESTORED" };
        let row = |what: &str, n: u64, note: String| {
            format!("{what:24}{:>16}  {note}", thousands(n)).trim_end().to_owned()
        };
        lines.push(row("node killed", self.kills.into(), "SIGKILL".into()));
        lines.push(row("agent panicked", self.panics.into(), restored.into()));
        let of = format!("of {} acknowledged", thousands(self.balance.acknowledged));
        lines.push(row("acknowledged work lost", self.balance.lost, of));
        lines.push(row("done twice", self.balance.twice, String::new()));
        if self.agents.failed > 0 || self.agents.pending > 0 {
            lines.push(row("failed", self.agents.failed, String::new()));
            lines.push(row("pending", self.agents.pending, String::new()));
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proof() -> Proof {
        Proof {
            agents: Counts { files: 5_000, bytes: 30, words: 20, done: 5_001, failed: 0, pending: 0 },
            recount: Recount { files: 5_000, bytes: 30, words: 20 },
            balance: Balance { acknowledged: 9, lost: 0, twice: 0 },
            kills: 2,
            panics: 1,
            restored: true,
        }
    }

    #[test]
    fn every_difference_breaks_the_proof() {
        assert!(proof().holds());
        assert!(proof().table().contains("5,000           5,000  same"));
        let breaks: [fn(&mut Proof); 7] = [
            |p| p.agents.files += 1,
            |p| p.agents.words += 1,
            |p| p.agents.failed = 1,
            |p| p.agents.pending = 1,
            |p| p.balance.lost = 1,
            |p| p.balance.twice = 1,
            |p| p.restored = false,
        ];
        for broken in breaks {
            let mut proof = proof();
            broken(&mut proof);
            assert!(!proof.holds());
        }
    }
}
