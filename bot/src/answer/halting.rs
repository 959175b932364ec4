//! `halt` and `resume`.

use jiff::Timestamp;

use super::Answer;
use crate::{
    bot::{Asked, Bot},
    halt::Halted,
    wording::{Message, Severity, ago},
};

impl Bot {
    pub(super) async fn halt_all(&self, asked: &Asked, why: String) -> Result<Answer, Answer> {
        let halted = Halted {
            by: asked.permit.who().clone(),
            at: Timestamp::now(),
            why,
        };
        self.halt.halt(halted.clone()).await?;
        let open = self.store.jobs(true, super::looking::JOBS_SHOWN).await?;
        let message = Message::new(Severity::Attention, "Halted: no new step starts")
            .line(halted.why.clone())
            .line(match open.len() {
                0 => "No job was running.".to_owned(),
                1 => "1 job is held after its running steps.".to_owned(),
                jobs => format!("{jobs} jobs are held after their running steps."),
            })
            .hint(format!("{}resume ends the halt", asked.place.prefix));
        Ok(Answer::new(message).with(halted))
    }

    pub(super) async fn resume(&self, asked: &Asked) -> Result<Answer, Answer> {
        let now = Timestamp::now();
        Ok(match self.halt.resume().await? {
            None => Answer::new(Message::new(Severity::Info, "Nothing was halted")),
            Some(halted) => {
                let text = format!("Goes on, as {} says", asked.who());
                let was = format!("It was {halted} ({})", ago(halted.at, now));
                Answer::new(Message::new(Severity::Good, text).line(was))
            }
        })
    }
}
