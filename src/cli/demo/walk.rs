//! The walk through the demo: a buyer meets everything that the wall does, and checks it.

use std::net::SocketAddr;

use alloy_primitives::B256;
use reqwest::{Client, Response};
use secp256k1::SecretKey;
use serde_json::Value;

use crate::buyer::choice::{Challenge, Choice, SpendLimit};
use crate::buyer::{Buyer, Proof, client};
use crate::clock::{Clock, SystemClock};
use crate::money::{Decimals, MoneyError, PriceText};
use crate::sandbox::Sandbox;
use crate::x402::header;

/// The most that the demo's buyer pays for one request.
const LIMIT: &str = "$0.10";

pub(super) struct Walk<'a> {
    wall: SocketAddr,
    sandbox: &'a Sandbox,
}

type Step = Result<(), Box<dyn std::error::Error>>;

/// One answer, read to its end.
struct Answer {
    status: u16,
    receipt: Option<Value>,
    challenge: Option<Challenge>,
    replayed: bool,
    body: String,
}

/// A purchase to come back to.
struct Purchase {
    proof: Proof,
    body: String,
}

impl<'a> Walk<'a> {
    pub(super) const fn new(wall: SocketAddr, sandbox: &'a Sandbox) -> Self {
        Self { wall, sandbox }
    }

    /// Walks, prints, and says whether each step went as it should.
    pub(super) async fn all(&self) -> bool {
        println!(
            "Farewall demo: a wall on http://{}, play money, nothing leaves this machine.",
            self.wall
        );
        match self.steps().await {
            Ok(()) => true,
            Err(error) => {
                println!("   FAILED: {error}");
                false
            }
        }
    }

    async fn steps(&self) -> Step {
        let client = client()?;
        let buyer = Buyer::new(new_key());
        self.free(&client).await?;
        let (challenge, choice) = self.challenged(&client).await?;
        let bought = self.paid(&client, &buyer, &challenge, &choice).await?;
        self.again(&client, &bought).await?;
        self.elsewhere(&client, &bought).await?;
        self.failing(&client, &buyer).await
    }

    async fn free(&self, client: &Client) -> Step {
        title("A free route passes");
        let answer = self.get(client, "/health", None).await?;
        expect(answer.status == 200, "200")
    }

    async fn challenged(
        &self,
        client: &Client,
    ) -> Result<(Challenge, Choice), Box<dyn std::error::Error>> {
        title("A priced route asks for money");
        let answer = self.get(client, "/quote", None).await?;
        expect(answer.status == 402, "402")?;
        let challenge = answer.challenge.ok_or("no challenge in PAYMENT-REQUIRED")?;
        let text = serde_json::to_string_pretty(challenge.message())?;
        println!("   PAYMENT-REQUIRED, decoded:\n{}", indented(&text));
        let choice = challenge.choose(&limit()?)?;
        Ok((challenge, choice))
    }

    async fn paid(
        &self,
        client: &Client,
        buyer: &Buyer,
        challenge: &Challenge,
        choice: &Choice,
    ) -> Result<Purchase, Box<dyn std::error::Error>> {
        title("Paid, it is served, with a receipt");
        let usdc = Decimals::new(6)?;
        println!(
            "   {} signs {} USDC to {}",
            buyer.address(),
            choice.amount.in_tokens(usdc),
            choice.pay_to
        );
        let proof = buyer.prove(challenge, choice, SystemClock.now(), new_nonce());
        let answer = self.get(client, "/quote", Some(&proof)).await?;
        expect(answer.status == 200, "200")?;
        let receipt = answer.receipt.ok_or("no receipt in PAYMENT-RESPONSE")?;
        println!("   PAYMENT-RESPONSE, decoded: {receipt}");
        expect(
            receipt.get("success") == Some(&Value::Bool(true)),
            "success in the receipt",
        )?;
        expect(self.sandbox.stats().settled == 1, "one settlement")?;
        Ok(Purchase {
            proof,
            body: answer.body,
        })
    }

    async fn again(&self, client: &Client, bought: &Purchase) -> Step {
        title("The same proof again: the same bytes, no second sale");
        let answer = self.get(client, "/quote", Some(&bought.proof)).await?;
        expect(
            answer.status == 200 && answer.body == bought.body,
            "the same 200",
        )?;
        expect(answer.replayed, "Idempotency-Replayed: true")?;
        expect(self.sandbox.stats().settled == 1, "still one settlement")
    }

    async fn elsewhere(&self, client: &Client, bought: &Purchase) -> Step {
        title("The same proof for another route: spent");
        let answer = self.get(client, "/events", Some(&bought.proof)).await?;
        expect(answer.status == 402, "402")?;
        expect(self.sandbox.stats().settled == 1, "still one settlement")
    }

    async fn failing(&self, client: &Client, buyer: &Buyer) -> Step {
        title("A route whose origin fails is not charged");
        let asked = self.get(client, "/broken", None).await?;
        let challenge = asked.challenge.ok_or("no challenge in PAYMENT-REQUIRED")?;
        let choice = challenge.choose(&limit()?)?;
        let proof = buyer.prove(&challenge, &choice, SystemClock.now(), new_nonce());
        let answer = self.get(client, "/broken", Some(&proof)).await?;
        expect(answer.status == 500, "500 as the origin gave it")?;
        expect(answer.receipt.is_none(), "no receipt")?;
        expect(self.sandbox.stats().settled == 1, "nothing settled")
    }

    async fn get(
        &self,
        client: &Client,
        path: &str,
        proof: Option<&Proof>,
    ) -> Result<Answer, Box<dyn std::error::Error>> {
        let mut request = client.get(format!("http://{}{path}", self.wall));
        if let Some(proof) = proof {
            request = request.header(proof.header, &proof.value);
        }
        let response = request.send().await?;
        let answer = read(response).await?;
        let with = if proof.is_some() {
            " with PAYMENT-SIGNATURE"
        } else {
            ""
        };
        let replayed = if answer.replayed {
            "  (Idempotency-Replayed: true)"
        } else {
            ""
        };
        let body = if answer.status == 402 {
            String::new()
        } else {
            format!("  {}", answer.body)
        };
        println!(
            "   GET {path}{with}\n   -> {}{replayed}{body}",
            answer.status
        );
        Ok(answer)
    }
}

async fn read(response: Response) -> Result<Answer, Box<dyn std::error::Error>> {
    let status = response.status().as_u16();
    let header = |name: &str| {
        response
            .headers()
            .get(name)
            .map(|value| value.as_bytes().to_vec())
    };
    let receipt = header(header::PAYMENT_RESPONSE).and_then(|v| header::decode(&v, 65_536).ok());
    let challenge = match header(header::PAYMENT_REQUIRED) {
        Some(value) => Some(Challenge::from_header(&value)?),
        None => None,
    };
    let replayed = header("idempotency-replayed").is_some();
    let body = response.text().await?;
    Ok(Answer {
        status,
        receipt,
        challenge,
        replayed,
        body,
    })
}

/// A nonce nobody has used.
fn new_nonce() -> B256 {
    B256::from(rand::random::<[u8; 32]>())
}

fn limit() -> Result<SpendLimit, MoneyError> {
    Ok(SpendLimit {
        max_price: PriceText::parse(LIMIT)?,
        network: None,
    })
}

fn title(text: &str) {
    println!("\n-- {text}");
}

fn expect(holds: bool, what: &str) -> Step {
    if holds {
        Ok(())
    } else {
        Err(format!("expected {what}").into())
    }
}

fn indented(text: &str) -> String {
    text.lines()
        .map(|line| format!("      {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// A fresh account; the sandbox gives every account some play money.
fn new_key() -> SecretKey {
    loop {
        if let Ok(key) = SecretKey::from_byte_array(rand::random()) {
            return key;
        }
    }
}
