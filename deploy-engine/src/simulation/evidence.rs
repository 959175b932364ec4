//! What one bot is told of the world when it judges conditions and takes readings.

use async_trait::async_trait;
use jiff::Timestamp;

use super::{
    clock::start,
    facts::{Fact, What},
    network::Network,
    world::{Extent, Inner, Message},
};
use crate::{
    condition::{ConditionCall, Judgement},
    probe::{Ask, Reading, Readings},
    runner::Evidence,
    wire::StepKey,
};

/// Judges `done:X` (X was done), `flag:K` (the K-th flag), `after:N` (N seconds since the begin), `never`, `impossible`, and
/// `unknown`.
#[async_trait]
impl Evidence for Network {
    async fn gather(&self, asks: &[Ask], now: Timestamp) -> Readings {
        let mut readings = Readings::default();
        for ask in asks {
            let key = StepKey("none".into());
            let reading = match self.exchange(&ask.host, Message::Ask { key }).await {
                Ok(_) => Reading::Known {
                    value: self.world.effects().into(),
                    at: now,
                },
                Err(error) => Reading::Unknown {
                    why: error.to_string(),
                    at: now,
                },
            };
            readings.insert(&ask.probe, ask.host.clone(), reading);
        }
        readings
    }

    async fn judge(&self, call: &ConditionCall, _: Timestamp) -> (Judgement, Readings) {
        let host = &call.hosts[0];
        let (arrives, there) = {
            let (now, weather) = (self.now(), &self.world.weather);
            let parted = self.parted_until(host).is_some();
            let mut inner = self.world.now();
            let chance = weather.network.lost_before_it_arrives;
            let lost = !weather.is_calm(now) && inner.dice.chance(chance);
            let down = inner.host(host).is_down(now);
            (!parted && !lost && !down, weather.latency(&mut inner.dice))
        };
        self.world.clock.pause(there).await;
        let now = self.now();
        let judgement = {
            let mut inner = self.world.now();
            let judgement = match arrives {
                true => judged(&inner, &call.name, now),
                false => Judgement::Unknown {
                    why: "no answer".into(),
                },
            };
            let what = What::Judged {
                bot: self.bot,
                condition: call.name.clone(),
                holds: judgement.holds(),
            };
            inner.facts.push(Fact {
                at: now,
                host: host.clone(),
                what,
            });
            judgement
        };
        self.world.trace.say(now, || {
            format!("bot{} judges {}: {judgement:?}", self.bot, call.name)
        });
        let back = {
            let mut inner = self.world.now();
            self.world.weather.latency(&mut inner.dice)
        };
        self.world.clock.pause(back).await;
        (judgement, Readings::default())
    }
}

fn judged(inner: &Inner, name: &str, now: Timestamp) -> Judgement {
    let why = String::new();
    let (name, argument) = name.split_once(':').unwrap_or((name, ""));
    let holds = match name {
        "done" => inner.effects.get(argument) == Some(&Extent::Whole),
        "flag" => {
            let flag = argument.parse::<usize>().expect("a number of a flag");
            inner.flags[flag].iter().filter(|at| **at <= now).count() % 2 == 0
        }
        "after" => {
            let seconds: i64 = argument.parse().expect("a number of seconds");
            now.duration_since(start()).as_secs() >= seconds
        }
        "never" => false,
        "impossible" => return Judgement::Refuted { why },
        _ => return Judgement::Unknown { why },
    };
    match holds {
        true => Judgement::Holds { why },
        false => Judgement::NotYet { why },
    }
}
