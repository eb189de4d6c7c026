//! Subjects and streams.
//!
//! ```text
//!   settle.command.SERVICE      commands; in JetStream mode the stream settle-command-SERVICE keeps them
//!   settle.question.SERVICE     questions to any instance of a service
//!   settle.at.INSTANCE          questions to one instance
//!   settle.all.SERVICE          news for every instance of a service
//!   settle.reply.RANDOM.…       one process's answers: rID (to a question), b (replies to commands), aID (the server's word on a message)
//!   settle.pull.RANDOM          commands that the server hands to one process
//!   settle.dead.SERVICE         dead letters, in the stream settle-dead
//! ```

use protocol::Name;

/// The group of the instances that share a service's commands, and of those that share its questions; and the name of the consumer.
pub(crate) const GROUP: &str = "instances";

/// A name as one word of a subject: a name may have dots, a word may not. `=` is in no name.
fn word(name: Name) -> String {
    name.as_str().replace('.', "=")
}

#[derive(Debug, Clone)]
pub(crate) struct Names {
    prefix: String,
}

impl Names {
    pub(crate) fn new(prefix: Name) -> Self {
        Self { prefix: word(prefix) }
    }

    pub(crate) fn command(&self, service: Name) -> String {
        format!("{}.command.{}", self.prefix, word(service))
    }

    pub(crate) fn command_stream(&self, service: Name) -> String {
        format!("{}-command-{}", self.prefix, word(service))
    }

    pub(crate) fn question(&self, service: Name) -> String {
        format!("{}.question.{}", self.prefix, word(service))
    }

    pub(crate) fn at(&self, instance: Name) -> String {
        format!("{}.at.{}", self.prefix, word(instance))
    }

    pub(crate) fn all(&self, service: Name) -> String {
        format!("{}.all.{}", self.prefix, word(service))
    }

    /// What every subject for answers begins with.
    pub(crate) fn replies(&self) -> String {
        format!("{}.reply.", self.prefix)
    }

    pub(crate) fn pull(&self) -> String {
        format!("{}.pull.{}", self.prefix, random())
    }

    pub(crate) fn inbox(&self) -> String {
        format!("{}.reply.{}.", self.prefix, random())
    }

    pub(crate) fn nobody(&self) -> String {
        format!("{}.nobody.{}", self.prefix, random())
    }

    pub(crate) fn dead(&self, service: Name) -> String {
        format!("{}.dead.{}", self.prefix, word(service))
    }

    pub(crate) fn all_dead(&self) -> String {
        format!("{}.dead.*", self.prefix)
    }

    pub(crate) fn dead_stream(&self) -> String {
        format!("{}-dead", self.prefix)
    }
}

fn random() -> String {
    format!("{:032x}", fastrand::u128(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dot_in_a_name_does_not_make_two_words() {
        let names = Names::new(Name::literal("a.b"));
        assert_eq!(names.command(Name::literal("c.d")), "a=b.command.c=d");
        assert_eq!(names.command_stream(Name::literal("c.d")), "a=b-command-c=d");
    }
}
