//! `settle doctor --data` reads the databases as a start would, and says what is wrong with them, whatever it is.

#![allow(clippy::unwrap_used, reason = "in a test a broken expectation is a failed test")]

mod common;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;

use common::{Folder, stdout};

const ALL: [&str; 3] = ["orders", "stock", "payment"];

/// The folder of a shop that has sold something, and was stopped.
fn of_a_shop() -> Folder {
    let folder = Folder::new();
    let server = folder.serve(&[]);
    server.seed();
    server.must("/orders/checkout/0");
    server.stop();
    folder
}

impl Folder {
    /// The exit code, and what is said.
    fn doctor(&self) -> (i32, String) {
        let output = self.tool(&["doctor"]);
        (output.status.code().unwrap(), stdout(&output))
    }

    fn journal(&self, service: &str) -> PathBuf {
        let files = fs::read_dir(self.data().join(service)).unwrap().map(|file| file.unwrap().path());
        files.into_iter().find(|file| file.extension().is_some_and(|word| word == "seg")).unwrap()
    }

    /// Everything in it that could change.
    fn state(&self) -> Vec<(PathBuf, u64, std::time::SystemTime)> {
        let folders = ALL.map(|service| self.data().join(service)).into_iter().chain([self.data()]);
        let files = folders.flat_map(|folder| fs::read_dir(folder).unwrap());
        let mut state: Vec<_> = files
            .map(|file| {
                let (path, about) = (file.as_ref().unwrap().path(), file.unwrap().metadata().unwrap());
                (path, about.len(), about.modified().unwrap())
            })
            .collect();
        state.sort();
        state
    }

    #[track_caller]
    fn is_found_wrong(&self, words: &[&str]) {
        let before = self.state();
        let (code, said) = self.doctor();
        let found = said.lines().any(|line| line.starts_with("WRONG") && words.iter().all(|word| line.contains(word)));
        assert!(found && code == 1, "no {words:?} in {code}:\n{said}");
        assert!(self.state() == before, "the doctor changed something");
    }
}

#[test]
fn whole_databases_are_called_whole_and_those_of_a_running_shop_are_left_alone() {
    let folder = of_a_shop();
    let before = folder.state();
    let (code, said) = folder.doctor();
    for service in ALL {
        assert!(said.contains(&format!("ok       {service} database: whole: it opens with ")), "{said}");
    }
    assert_eq!(code, 0, "{said}");
    assert!(folder.state() == before, "the doctor changed something");
    let server = folder.serve(&[]);
    let (code, said) = folder.doctor();
    assert!(code == 0 && said.matches("in use by process ").count() == 3, "{said}");
    server.stop();
}

#[test]
fn a_damaged_journal_is_named_with_what_to_do() {
    let folder = of_a_shop();
    let file = folder.journal("stock");
    let journal = OpenOptions::new().write(true).open(&file).unwrap();
    journal.write_all_at(&[0xa5; 64], 600).unwrap();
    let name = file.file_name().unwrap().to_str().unwrap().to_owned();
    let damaged = ["stock database: ", &*name, "is damaged at byte", "docs/operating.md#a-damaged-journal"];
    folder.is_found_wrong(&damaged);
    let folder = of_a_shop();
    OpenOptions::new().write(true).open(folder.journal("orders")).unwrap().set_len(700).unwrap();
    folder.is_found_wrong(&["orders database: ", "is damaged at byte"]);
}

#[test]
fn a_folder_in_anothers_place_and_one_that_is_missing_are_named() {
    let folder = of_a_shop();
    let [stock, payment, aside] = ["stock", "payment", "aside"].map(|name| folder.data().join(name));
    for (from, to) in [(&stock, &aside), (&payment, &stock), (&aside, &payment)] {
        fs::rename(from, to).unwrap();
    }
    folder.is_found_wrong(&["stock database: ", "is the database of payment"]);
    let folder = of_a_shop();
    let [orders, stock] = ["orders", "stock"].map(|name| folder.data().join(name));
    fs::remove_dir_all(&orders).unwrap();
    fs::rename(&stock, &orders).unwrap();
    fs::create_dir(&stock).unwrap();
    folder.is_found_wrong(&["orders database: ", "it belongs to a store of \"ledger\""]);
    fs::remove_dir_all(&stock).unwrap();
    let (code, said) = folder.doctor();
    assert!(code == 1 && said.contains("the stock database is missing, and the others are there"), "{said}");
}

#[test]
fn a_shop_does_not_start_without_a_database_that_it_had() {
    for lost in ["orders", "stock", "payment"] {
        let folder = of_a_shop();
        let [lost, aside] = [lost, "aside"].map(|name| folder.data().join(name));
        fs::rename(&lost, &aside).unwrap();
        let is_refused = || {
            let refused = folder.tool(&["serve", "--listen", "127.0.0.1:0"]);
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert_eq!(refused.status.code(), Some(2), "{said}");
            assert!(said.contains("database is missing, and the others are there"), "{said}");
        };
        is_refused();
        assert!(!lost.exists(), "nothing was made");
        // An empty folder is no database.
        fs::create_dir(&lost).unwrap();
        is_refused();
        fs::remove_dir(&lost).unwrap();
        // Put back, all is as it was.
        fs::rename(&aside, &lost).unwrap();
        folder.serve(&[]).stop();
    }
}

#[test]
fn a_first_start_that_came_to_its_end_half_way_is_gone_on_with() {
    let folder = Folder::new();
    folder.serve(&[]).stop();
    // Orders has a registered instance by now; before that it is as empty as the others.
    for service in ["orders", "payment"] {
        fs::remove_dir_all(folder.data().join(service)).unwrap();
    }
    let (_, said) = folder.doctor();
    assert!(said.contains("orders and payment will be made in "), "{said}");
    folder.serve(&[]).stop();
}

#[test]
fn the_folder_of_a_system_of_many_processes_is_told_apart() {
    let folder = Folder::new();
    fs::create_dir_all(folder.data()).unwrap();
    fs::write(folder.data().join("up.json"), "{}").unwrap();
    let (code, said) = folder.doctor();
    assert!(code == 1 && said.contains("is the data folder of a `settle up`"), "{said}");
    assert!(said.contains("settle doctor --config"), "{said}");
}

#[test]
fn a_data_folder_is_made_for_its_owner_alone_and_one_that_is_there_stays_as_it_is() {
    let folder = of_a_shop();
    let mode = || fs::metadata(folder.data()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o700);
    assert!(folder.doctor().1.contains("ok       data folder: "));
    fs::set_permissions(folder.data(), PermissionsExt::from_mode(0o750)).unwrap();
    folder.serve(&[]).stop();
    assert_eq!(mode(), 0o750);
}
