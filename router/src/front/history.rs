//! `/history`, from the ledger.

use super::answer::{self, Answered};
use super::queue::Change;
use super::{Call, Front, body};
use crate::comfy::{PromptError, history};
use crate::ledger::{HistoryQuery, HistoryRow};

impl Front {
    pub(super) async fn history(&self, call: Call) -> Answered {
        let query = call.query();
        let number = |name: &str| {
            let text = body::value(&query, name).filter(|text| !text.is_empty());
            let wrong = |_| {
                answer::refused(&PromptError::new("invalid_query", format!("{name} must be an integer"), ""))
            };
            text.map(|text| text.trim().parse::<i64>().map_err(wrong)).transpose()
        };
        let query = HistoryQuery { max_items: number("max_items")?, offset: number("offset")?.unwrap_or(-1) };
        let rows = match call.caller.apart {
            false => self.parts.ledger.history(query).await?,
            true => {
                let mut rows = self.parts.ledger.history(HistoryQuery::default()).await?;
                rows.retain(|row| call.caller.may_see(&row.job.tenant));
                windowed(rows, query)
            }
        };
        Ok(shown(&rows))
    }

    /// An empty object for a job that is unknown or not over: clients poll this.
    pub(super) async fn history_of(&self, call: Call) -> Answered {
        let Some(id) = call.params.first() else { return Ok(answer::json_text("{}")) };
        let row = self.parts.ledger.history_of(id).await?;
        let rows: Vec<HistoryRow> =
            row.into_iter().filter(|row| call.caller.may_see(&row.job.tenant)).collect();
        Ok(shown(&rows))
    }

    pub(super) async fn change_history(&self, call: Call) -> Answered {
        let (caller, body) = self.command(call).await?;
        let Some(change) = body::parsed::<Change>(&body)? else { return Ok(answer::ok()) };
        let ledger = &self.parts.ledger;
        if !caller.apart {
            if change.clears() {
                ledger.clear_history().await?;
            }
            ledger.delete_history(change.ids()).await?;
            return Ok(answer::ok());
        }
        let mine = ledger.history(HistoryQuery::default()).await?;
        let mine =
            mine.into_iter().filter(|row| caller.may_see(&row.job.tenant)).map(|row| row.job.prompt_id);
        let clears = change.clears();
        let ids = change.ids();
        ledger.delete_history(mine.filter(|id| clears || ids.contains(id)).collect()).await?;
        Ok(answer::ok())
    }
}

fn shown(rows: &[HistoryRow]) -> answer::Answer {
    answer::json_text(history::entries(rows.iter().map(|row| (&row.job, &row.history))))
}

/// What the ledger does for everybody's history, for the rows of one tenant.
fn windowed(mut rows: Vec<HistoryRow>, query: HistoryQuery) -> Vec<HistoryRow> {
    let max = query.max_items.map(|max| usize::try_from(max).unwrap_or(0));
    if query.offset >= 0 {
        rows.drain(..usize::try_from(query.offset).unwrap_or(usize::MAX).min(rows.len()));
        rows.truncate(max.map_or(usize::MAX, |max| max.max(1)));
    } else if let Some(max) = max {
        rows.drain(..rows.len().saturating_sub(max));
    }
    rows
}
