//! Everything at once: the audit that an operator asks for, out of the same pages.

use std::collections::BTreeSet;

use ledger::audit::Discrepancy;
use orchestrator::{LedgerAudit, Look, Seen, Standing};
use protocol::Name;
use protocol::limits::MAX_AUDIT_PAGE;

use super::Books;
use crate::audit::{AuditReport, compare};
use crate::checkout::{PAYMENT, STOCK};
use crate::order_store::{OrdersAnswer, OrdersQuery};

impl Books {
    /// Audits all there is. Orders are compared with ledgers only if nothing was under way meanwhile.
    ///
    /// # Errors
    /// Who did not answer.
    pub async fn audit(&self) -> Result<AuditReport, String> {
        let OrdersAnswer::Audit(orders) = self.query(OrdersQuery::Audit).await? else {
            return Err("the orders answered another question".to_owned());
        };
        let (stock, payment) = (self.ledger(STOCK).await?, self.ledger(PAYMENT).await?);
        let now = self.query(OrdersQuery::Progress).await?;
        let stood_still = now == OrdersAnswer::Progress(orders.ended);
        Ok(compare(*orders, stock, payment, stood_still))
    }

    async fn ledger(&self, service: Name) -> Result<LedgerAudit, String> {
        let strange = || format!("{service} answered another question");
        let (mut found, mut seen) = (LedgerAudit::default(), BTreeSet::new());
        let (mut after, mut off) = (Some(String::new()), BTreeSet::new());
        while let Some(page) = after {
            let Seen::Accounts { rows, next, seeded } = self.look(service, Look::Accounts { after: page }).await?
            else {
                return Err(strange());
            };
            let mut held = Vec::new();
            found.accounts = found.accounts.max(seeded);
            for row in rows.into_iter().filter(|row| seen.insert(row.id)) {
                found.accounts += u64::from(!row.seeded);
                if row.settled != 0 {
                    found.settled.insert(row.id, row.settled);
                }
                let Some(account) = row.account else { continue };
                found.totals.add(&account);
                let off_by = account.discrepancy();
                if off_by != 0 {
                    found.discrepancies.push(Discrepancy::NotConserved { account: row.id, off_by });
                }
                if account.available < 0 {
                    let off_by = -i128::from(account.available);
                    found.discrepancies.push(Discrepancy::Overdrawn { account: row.id, off_by });
                }
                if account.held != 0 {
                    held.push(row.id);
                }
            }
            let chunks = held.chunks(MAX_AUDIT_PAGE).map(<[_]>::to_vec);
            for accounts in chunks.chain(next.is_none().then(Vec::new)) {
                let Seen::Standing(standing) = self.look(service, Look::Standing(accounts)).await? else {
                    return Err(strange());
                };
                let holds = |Standing { id, held, promised, .. }: Standing| (id, i128::from(held) - promised);
                off.extend(standing.into_iter().flatten().map(holds).filter(|(_, off_by)| *off_by != 0));
            }
            after = next;
        }
        let holds = |(account, off_by)| Discrepancy::HeldByNobody { account, off_by };
        found.discrepancies.extend(off.into_iter().map(holds));
        Ok(found)
    }
}
