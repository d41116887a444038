//! `/history`, from the ledger.

use super::answer::{self, Answered};
use super::change::Change;
use super::gate::Caller;
use super::{Call, Front, body, pieces};
use crate::comfy::{PromptError, history, python};
use crate::ledger::HistoryQuery;

impl Front {
    pub(super) async fn history(&self, call: Call) -> Answered {
        let query = call.query();
        let number = |name: &str| {
            let wrong = || {
                answer::refused(&PromptError::new("invalid_query", format!("{name} must be an integer"), ""))
            };
            let read = |text| python::int_of(text).ok_or_else(wrong);
            body::value(&query, name).map(read).transpose()
        };
        let query = HistoryQuery { max_items: number("max_items")?, offset: number("offset")?.unwrap_or(-1) };
        let ledger = &self.parts.ledger;
        let seqs = ledger.history(query, alone(&call.caller)).await?;
        pieces::answer(pieces::history(ledger.clone(), seqs)).await
    }

    /// An empty object for a job that is unknown or not over: clients poll this.
    pub(super) async fn history_of(&self, call: Call) -> Answered {
        let Some(id) = call.params.first() else { return Ok(answer::json_text("{}")) };
        let row = self.parts.ledger.history_of(id).await?;
        let row = row.filter(|row| call.caller.may_see(&row.job.tenant));
        let entry = row.map(|row| history::named_entry(&row.job, &row.history)).unwrap_or_default();
        Ok(answer::json_text(format!("{{{entry}}}")))
    }

    pub(super) async fn change_history(&self, call: Call) -> Answered {
        let (caller, body) = self.command(call).await?;
        let Change { clear, delete } = Change::read(&body)?;
        let ledger = &self.parts.ledger;
        if clear {
            ledger.clear_history(alone(&caller)).await?;
        }
        ledger.delete_history(delete, alone(&caller)).await?;
        Ok(answer::ok())
    }
}

/// The tenant to whose jobs a caller is confined, if any.
pub(super) fn alone(caller: &Caller) -> Option<String> {
    caller.apart.then(|| caller.tenant.clone())
}
