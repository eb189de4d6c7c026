//! A look at the replicas of a database: each of them is the master after a failover.

use crate::error::OpenError;
use crate::examine::Examined;
use crate::link::{Link, field};
use crate::options::{Durability, Options, Place};

impl Examined {
    /// Looks at every replica that the master names, or that is `known` otherwise, as if it were the master.
    pub(crate) fn replicas(
        &mut self,
        master: &mut Link,
        known: Vec<String>,
        options: &Options,
    ) -> Result<(), OpenError> {
        self.acknowledgements(master, options)?;
        let replication = master.info("replication")?;
        self.wanted_by_master(master, &replication)?;
        let mut replicas = named_by_master(&replication);
        replicas.extend(known);
        replicas.sort();
        replicas.dedup();
        // Around a failover a Sentinel may take it for its own replica.
        replicas.retain(|replica| *replica != master.address);
        // Elsewhere it is the master only if somebody makes it that by hand, and no answer rests on it.
        let relied_on = matches!(options.place, Place::Sentinel { .. })
            || matches!(options.durability, Durability::Replicated { .. });
        for address in replicas {
            match Link::introduce(&address, options).and_then(|mut replica| replica.losses(options)) {
                Ok(losses) => {
                    let said =
                        losses.iter().map(|loss| format!("{loss}: it is a replica, and the master after a failover"));
                    if relied_on { self.problems.extend(said) } else { self.warnings.extend(said) }
                }
                // It may be out of reach from here only.
                Err(why) => self.warnings.push(format!("a replica cannot be looked at: {why}")),
            }
        }
        Ok(())
    }

    /// Looks whether the master has the replicas without which it takes no writes.
    fn wanted_by_master(&mut self, master: &mut Link, replication: &str) -> Result<(), OpenError> {
        // It counts those that were heard of lately, and only if it was told to want any.
        let Some(good) = field(replication, "min_slaves_good_slaves").and_then(|good| good.parse::<u32>().ok()) else {
            return Ok(());
        };
        let wanted = master.setting("min-replicas-to-write")?;
        if wanted.parse::<u32>().is_ok_and(|wanted| good < wanted) {
            self.problems.push(format!(
                "{} refuses every write: `min-replicas-to-write {wanted}`, and it has heard of {good} within `min-replicas-max-lag`: start \
                 more, or set fewer",
                master.address
            ));
        }
        Ok(())
    }

    /// Looks whether the replicas in touch keep up. One that stands still is in touch until its master has missed it for a minute.
    fn acknowledgements(&mut self, master: &mut Link, options: &Options) -> Result<(), OpenError> {
        let in_touch = master.replicas;
        if in_touch == 0 {
            return Ok(());
        }
        let (address, wait) = (master.address.clone(), options.wait);
        let Some(found) = master.acknowledged(wait, options.patience)?.filter(|found| *found < in_touch) else {
            return Ok(());
        };
        let said = format!(
            "{address} has {in_touch} replicas in touch, and {found} of them acknowledge within {} ms: look for one that stands still, \
             or whose disk or network is slow",
            wait.as_millis()
        );
        match options.durability {
            Durability::Replicated { replicas } if found < replicas => {
                self.problems.push(format!("{said}; {replicas} must acknowledge every write"));
            }
            _ => self.warnings.push(said),
        }
        Ok(())
    }
}

/// `host:port` of each replica, out of `INFO replication`.
fn named_by_master(replication: &str) -> Vec<String> {
    let named = |line: &str| {
        let (number, said) = line.strip_prefix("slave")?.split_once(':')?;
        number.parse::<u32>().ok()?;
        let part = |name: &str| said.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        Some(format!("{}:{}", part("ip")?, part("port")?))
    };
    replication.lines().filter_map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_master_names_its_replicas_among_other_things() {
        let said = "role:master\r\nconnected_slaves:2\r\nslave0:ip=10.0.0.7,port=6380,state=online,offset=14,lag=0\r\n\
                    slave1:ip=::1,port=6381,state=wait_bgsave,offset=0,lag=0\r\nslaves_waiting_psync:0\r\n";
        assert_eq!(named_by_master(said), ["10.0.0.7:6380", "::1:6381"]);
    }
}
