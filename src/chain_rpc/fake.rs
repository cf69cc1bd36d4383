//! A chain that exists only for tests: one block a second, up to now, and the calls that are asked.
//!
//! `tests/it` includes this file too, so it uses nothing of ours.

#![allow(
    missing_docs,
    clippy::arithmetic_side_effects,
    reason = "a test's chain"
)]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use alloy_primitives::{Address, B256, U256, keccak256};
use axum::extract::State;
use axum::http::StatusCode;
use axum::{Json, Router, routing::post};
use serde_json::{Value, json};

/// A log, in its block and transaction.
#[derive(Clone, Debug)]
pub struct FakeLog {
    pub block: u64,
    pub transaction: B256,
    pub address: Address,
    pub topics: Vec<B256>,
    pub data: Vec<u8>,
}

/// What the chain says. Its first block has the number 0 and the time `genesis`.
#[derive(Debug)]
pub struct Script {
    pub chain_id: u64,
    pub genesis: u64,
    /// Number of the newest block.
    pub head: u64,
    pub logs: Vec<FakeLog>,
    /// EIP-3009 nonces that are used, and since which block.
    pub used: Vec<(B256, u64)>,
    /// Words of Permit2's bitmap.
    pub bitmap: Vec<(U256, U256)>,
    /// Input of each transaction.
    pub inputs: Vec<(B256, Vec<u8>)>,
    /// Blocks that one `eth_getLogs` may ask for.
    pub log_blocks_max: u64,
    /// Answers this status to everything.
    pub broken: Option<u16>,
    /// The methods that were called.
    pub calls: Vec<String>,
}

/// A running fake.
#[derive(Clone)]
pub struct FakeChain {
    pub address: SocketAddr,
    pub script: Arc<Mutex<Script>>,
}

pub fn word(address: Address) -> B256 {
    address.into_word()
}

impl FakeChain {
    /// On a free port; the newest block is `head`, of the time `now`.
    pub async fn start(chain_id: u64, now: u64, head: u64) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Mutex::new(Script {
            chain_id,
            genesis: now - head,
            head,
            logs: Vec::new(),
            used: Vec::new(),
            bitmap: Vec::new(),
            inputs: Vec::new(),
            log_blocks_max: 1000,
            broken: None,
            calls: Vec::new(),
        }));
        let app = Router::new()
            .route("/", post(answer))
            .with_state(Arc::clone(&script));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, script }
    }

    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    pub fn with<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        change(&mut self.script.lock().unwrap())
    }

    /// `AuthorizationUsed` and the transfer that follows it, in one transaction of `block`.
    pub fn settle(
        &self,
        block: u64,
        (token, from, to): (Address, Address, Address),
        value: u64,
        nonce: B256,
    ) -> B256 {
        let transaction = keccak256(nonce);
        self.with(|script| {
            script.used.push((nonce, block));
            script.logs.push(FakeLog {
                block,
                transaction,
                address: token,
                topics: vec![
                    keccak256("AuthorizationUsed(address,bytes32)"),
                    word(from),
                    nonce,
                ],
                data: Vec::new(),
            });
            script
                .logs
                .push(transfer(block, transaction, (token, from, to), value));
        });
        transaction
    }

    /// `AuthorizationCanceled`, in a transaction of `block`.
    pub fn cancel(&self, block: u64, token: Address, from: Address, nonce: B256) {
        self.with(|script| {
            script.used.push((nonce, block));
            script.logs.push(FakeLog {
                block,
                transaction: keccak256(nonce),
                address: token,
                topics: vec![
                    keccak256("AuthorizationCanceled(address,bytes32)"),
                    word(from),
                    nonce,
                ],
                data: Vec::new(),
            });
        });
    }
}

pub fn transfer(
    block: u64,
    transaction: B256,
    (token, from, to): (Address, Address, Address),
    value: u64,
) -> FakeLog {
    FakeLog {
        block,
        transaction,
        address: token,
        topics: vec![
            keccak256("Transfer(address,address,uint256)"),
            word(from),
            word(to),
        ],
        data: U256::from(value).to_be_bytes::<32>().to_vec(),
    }
}

async fn answer(
    State(script): State<Arc<Mutex<Script>>>,
    Json(call): Json<Value>,
) -> (StatusCode, Json<Value>) {
    let mut script = script.lock().unwrap();
    let method = call["method"].as_str().unwrap().to_owned();
    script.calls.push(method.clone());
    if let Some(status) = script.broken {
        return (StatusCode::from_u16(status).unwrap(), Json(json!("broken")));
    }
    let mut body = json!({ "jsonrpc": "2.0", "id": call["id"] });
    match result(&script, &method, &call["params"]) {
        Ok(result) => body["result"] = result,
        Err(message) => body["error"] = json!({ "code": -32000, "message": message }),
    }
    (StatusCode::OK, Json(body))
}

fn result(script: &Script, method: &str, params: &Value) -> Result<Value, &'static str> {
    let quantity = |number: u64| json!(format!("{number:#x}"));
    Ok(match method {
        "eth_chainId" => quantity(script.chain_id),
        "eth_blockNumber" => quantity(script.head),
        "eth_getBlockByNumber" => match number(&params[0]) {
            at if at > script.head => Value::Null,
            at => json!({ "number": quantity(at), "timestamp": quantity(script.genesis + at) }),
        },
        "eth_call" => call(script, params),
        "eth_getLogs" => {
            let filter = &params[0];
            let (from, to) = (number(&filter["fromBlock"]), number(&filter["toBlock"]));
            if to - from >= script.log_blocks_max {
                return Err("query exceeds max block range");
            }
            let fits = |log: &&FakeLog| (from..=to).contains(&log.block) && matches(log, filter);
            script.logs.iter().filter(fits).map(as_json).collect()
        }
        "eth_getTransactionReceipt" => {
            let hash: B256 = params[0].as_str().unwrap().parse().unwrap();
            let own = script.logs.iter().filter(|log| log.transaction == hash);
            json!({ "status": "0x1", "logs": own.map(as_json).collect::<Vec<_>>() })
        }
        "eth_getTransactionByHash" => {
            let hash: B256 = params[0].as_str().unwrap().parse().unwrap();
            let input = script.inputs.iter().find(|(known, _)| *known == hash);
            let input = input.map(|(_, input)| input.clone()).unwrap_or_default();
            json!({ "input": alloy_primitives::hex::encode_prefixed(input) })
        }
        _ => return Err("no such method"),
    })
}

fn call(script: &Script, params: &Value) -> Value {
    let data = alloy_primitives::hex::decode(params[0]["data"].as_str().unwrap()).unwrap();
    let at = number(&params[1]);
    let second = B256::from_slice(&data[36..68]);
    let answer = if data[..4] == keccak256("nonceBitmap(address,uint256)")[..4] {
        let second = U256::from_be_bytes(second.0);
        let known = script.bitmap.iter().find(|(word, _)| *word == second);
        known.map_or(U256::ZERO, |(_, bits)| *bits)
    } else {
        let is_used = script
            .used
            .iter()
            .any(|(nonce, since)| *nonce == second && *since <= at);
        U256::from(u8::from(is_used))
    };
    json!(B256::from(answer))
}

fn matches(log: &FakeLog, filter: &Value) -> bool {
    let is = |wanted: &Value, topic: &B256| {
        let one = |wanted: &Value| wanted.as_str().unwrap().parse::<B256>().unwrap() == *topic;
        wanted
            .as_array()
            .map_or_else(|| one(wanted), |any| any.iter().any(one))
    };
    let address: Address = filter["address"].as_str().unwrap().parse().unwrap();
    let topics = filter["topics"].as_array().unwrap();
    log.address == address
        && topics.len() <= log.topics.len()
        && topics
            .iter()
            .zip(&log.topics)
            .all(|(wanted, topic)| is(wanted, topic))
}

fn as_json(log: &FakeLog) -> Value {
    json!({
        "address": log.address, "topics": log.topics, "removed": false,
        "data": alloy_primitives::hex::encode_prefixed(&log.data),
        "transactionHash": log.transaction, "blockNumber": format!("{:#x}", log.block),
    })
}

fn number(value: &Value) -> u64 {
    u64::from_str_radix(value.as_str().unwrap().strip_prefix("0x").unwrap(), 16).unwrap()
}
