//! The questions in their order: the right chain? which block is deep enough? used there? in which
//! transaction? did it pay us?
//!
//! Everything is read as of one block that is `confirmations` deep, so that a short fork cannot
//! make a payment out of nothing.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use alloy_primitives::{Address, B256, U256, hex, keccak256};
use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::client::{BuildError, RpcClient};
use super::evidence::{self, Log};
use super::{Chain, Finding, Question, RpcFault};
use crate::chain::NonceSpace;
use crate::clock::UnixSeconds;
use crate::config::settings::NetworkSettings;
use crate::x402::permit2::PERMIT2;

/// Blocks of one `eth_getLogs`; halved when the node finds that too many.
const LOG_BLOCKS: u64 = 1000;
/// Under this a refusal is not about the number of blocks.
const LOG_BLOCKS_MIN: u64 = 10;
/// Calls of one look: finding two blocks by their time, and a day of a fast chain.
const CALLS_MAX: u32 = 600;
/// How far the clock of a chain and ours may differ, and a claim lag behind its settlement.
const SKEW_S: u64 = 600;
/// Transactions that are looked into for one Permit2 payment.
const CANDIDATES_MAX: usize = 16;

/// A chain of the EVM family, asked over JSON-RPC.
pub struct EvmChain {
    rpc: RpcClient,
    chain_id: u64,
    confirmations: u64,
    is_right: OnceCell<()>,
}

#[derive(Clone, Copy)]
struct Block {
    number: u64,
    time: UnixSeconds,
}

/// One look, with the calls it has left.
struct Look<'a> {
    chain: &'a EvmChain,
    question: &'a Question,
    calls: AtomicU32,
}

impl EvmChain {
    /// A chain that nobody has asked yet. `ca_file` replaces the system's certificate authorities.
    ///
    /// # Errors
    ///
    /// [`BuildError`]. Nothing is sent.
    pub fn new(settings: &NetworkSettings, ca_file: Option<&Path>) -> Result<Self, BuildError> {
        let wrong = || BuildError::Url(settings.network.to_string());
        Ok(Self {
            rpc: RpcClient::new(settings, ca_file)?,
            chain_id: settings.network.evm_chain_id().ok_or_else(wrong)?,
            confirmations: settings.confirmations,
            is_right: OnceCell::new(),
        })
    }
}

#[async_trait]
impl Chain for EvmChain {
    async fn look(&self, question: &Question) -> Result<Finding, RpcFault> {
        let look = Look {
            chain: self,
            question,
            calls: AtomicU32::new(0),
        };
        self.is_right.get_or_try_init(|| look.cross_check()).await?;
        look.run().await
    }
}

impl Look<'_> {
    async fn run(&self) -> Result<Finding, RpcFault> {
        let head = number(
            &self.call("eth_blockNumber", json!([])).await?,
            "eth_blockNumber",
        )?;
        let Some(deep) = head.checked_sub(self.chain.confirmations) else {
            let as_of = UnixSeconds(0);
            return Ok(Finding::Unused { as_of });
        };
        let deep = self.block(deep).await?;
        if !self.is_used(deep).await? {
            // In this block it could not be used any more, and in none before it was.
            let is_over = deep.time > self.question.valid_before;
            return Ok(if is_over {
                Finding::NeverUsed
            } else {
                Finding::Unused { as_of: deep.time }
            });
        }
        match self.question.nonce.space {
            NonceSpace::Eip3009 => self.eip3009(deep).await,
            NonceSpace::Permit2 => self.permit2(deep).await,
            NonceSpace::Opaque => Ok(Finding::Unexplained("not a payment that a chain can tell")),
        }
    }

    async fn cross_check(&self) -> Result<(), RpcFault> {
        let found = number(&self.call("eth_chainId", json!([])).await?, "eth_chainId")?;
        let wanted = self.chain.chain_id;
        if found == wanted {
            Ok(())
        } else {
            Err(RpcFault::WrongChain { found, wanted })
        }
    }

    async fn is_used(&self, at: Block) -> Result<bool, RpcFault> {
        let question = self.question;
        let payer = question.payer.into_word();
        let (contract, signature, second, bit) = match question.nonce.space {
            NonceSpace::Permit2 => {
                let (word, bit) = evidence::bit_of(question.nonce.bytes);
                (
                    PERMIT2,
                    "nonceBitmap(address,uint256)",
                    B256::from(word),
                    bit,
                )
            }
            NonceSpace::Eip3009 | NonceSpace::Opaque => {
                let state = "authorizationState(address,bytes32)";
                (question.token, state, question.nonce.bytes, U256::MAX)
            }
        };
        let selector = keccak256(signature);
        let (selector, _) = selector.split_at(4);
        let data = hex::encode_prefixed([selector, payer.as_slice(), second.as_slice()].concat());
        let call = json!([{ "to": contract, "data": data }, quantity(at.number)]);
        let answer = self.call("eth_call", call).await?;
        // Exactly one word: an account without code answers with nothing, which is no "unused".
        let word: B256 = answer
            .as_str()
            .filter(|text| text.len() == 66)
            .and_then(|text| text.parse().ok())
            .ok_or(RpcFault::Junk("eth_call"))?;
        Ok(!(U256::from_be_bytes(word.0) & bit).is_zero())
    }

    async fn eip3009(&self, deep: Block) -> Result<Finding, RpcFault> {
        let question = self.question;
        let (payer, nonce) = (question.payer.into_word(), question.nonce.bytes);
        let (used, cancelled) = (*evidence::USED, *evidence::CANCELLED);
        let topics = json!([[used, cancelled], payer, nonce]);
        let found = self.logs(question.token, &topics, deep).await?;
        let is = |log: &Log, event| log.is(question.token, &[event, payer, nonce]);
        match found.as_slice() {
            [] => Ok(Finding::Unexplained(
                "used, but not in the blocks that it was valid in",
            )),
            [log] if is(log, cancelled) => Ok(Finding::Cancelled),
            [log] if is(log, used) => {
                let logs = self.logs_of(log.transaction).await?;
                Ok(evidence::judge_use(question, log.transaction, &logs))
            }
            [_, ..] => Ok(Finding::Unexplained("the logs contradict one another")),
        }
    }

    /// Permit2 logs nothing when a nonce is used, so the transaction is known by the signature that
    /// it carries. A transaction with several transfers to us stays a person's business.
    async fn permit2(&self, deep: Block) -> Result<Finding, RpcFault> {
        let question = self.question;
        let payer = question.payer.into_word();
        let invalidations = json!([*evidence::INVALIDATED, payer]);
        let invalidated = self
            .logs(PERMIT2, &invalidations, deep)
            .await?
            .iter()
            .any(|log| evidence::invalidates(question.nonce.bytes, log));
        let transfers = json!([*evidence::TRANSFER, payer, question.pay_to.into_word()]);
        let transfers = self.logs(question.token, &transfers, deep).await?;
        match (transfers.is_empty(), invalidated) {
            (true, true) => return Ok(Finding::Cancelled),
            (true, false) => return Ok(Finding::UsedElsewhere),
            (false, true) => return Ok(Finding::Unexplained("invalidated beside other payments")),
            (false, false) => {}
        }
        let transactions: BTreeSet<B256> = transfers.iter().map(|log| log.transaction).collect();
        if transactions.len() > CANDIDATES_MAX {
            return Ok(Finding::Unexplained("too many payments at the same time"));
        }
        for transaction in transactions {
            let in_it = || {
                transfers
                    .iter()
                    .filter(|log| log.transaction == transaction)
            };
            if !evidence::carries(&self.input_of(transaction).await?, &question.signature) {
                continue;
            }
            let is_it = in_it().count() == 1 && in_it().all(|log| evidence::pays(question, log));
            return Ok(match is_it {
                true => Finding::Paid { transaction },
                false => Finding::Unexplained("its transaction does not pay this amount once"),
            });
        }
        Ok(Finding::Unexplained(
            "no payment to us carries its signature",
        ))
    }

    /// All logs of a contract with these topics, from shortly before the claim to the end of its
    /// validity or to the deep block, whichever is earlier.
    async fn logs(
        &self,
        contract: Address,
        topics: &Value,
        deep: Block,
    ) -> Result<Vec<Log>, RpcFault> {
        let since = self.question.claimed_at.minus(SKEW_S);
        let mut from = self.first_at(since, deep).await?;
        let last = self
            .first_at(self.question.valid_before.plus(1), deep)
            .await?;
        let mut size = LOG_BLOCKS;
        let mut logs = Vec::new();
        while from <= last {
            let to = from.saturating_add(size.saturating_sub(1)).min(last);
            let filter = json!([{
                "address": contract, "topics": topics,
                "fromBlock": quantity(from), "toBlock": quantity(to),
            }]);
            match self.call("eth_getLogs", filter).await {
                Ok(found) => {
                    let junk = || RpcFault::Junk("eth_getLogs");
                    logs.extend(evidence::read_logs(&found).ok_or_else(junk)?);
                    from = to.saturating_add(1);
                }
                Err(RpcFault::Refused { .. }) if size > LOG_BLOCKS_MIN => {
                    size = size.div_ceil(2).max(LOG_BLOCKS_MIN);
                }
                Err(fault) => return Err(fault),
            }
        }
        Ok(logs)
    }

    /// The number of the first block that is not older than `time`, at most that of `last`.
    async fn first_at(&self, time: UnixSeconds, last: Block) -> Result<u64, RpcFault> {
        let mut high = last.number;
        if last.time < time {
            return Ok(high);
        }
        let (mut low, mut step) = (high, 64_u64);
        while low > 0 {
            low = low.saturating_sub(step);
            step = step.saturating_mul(4);
            if self.block(low).await?.time < time {
                break;
            }
            high = low;
        }
        while low < high {
            let middle = low.midpoint(high);
            if self.block(middle).await?.time < time {
                low = middle.saturating_add(1);
            } else {
                high = middle;
            }
        }
        Ok(high)
    }

    async fn block(&self, at: u64) -> Result<Block, RpcFault> {
        const METHOD: &str = "eth_getBlockByNumber";
        let block = self.call(METHOD, json!([quantity(at), false])).await?;
        let member = |name| number(block.get(name).unwrap_or(&Value::Null), METHOD);
        if member("number")? != at {
            return Err(RpcFault::Junk(METHOD));
        }
        let time = UnixSeconds(member("timestamp")?);
        Ok(Block { number: at, time })
    }

    async fn logs_of(&self, transaction: B256) -> Result<Vec<Log>, RpcFault> {
        const METHOD: &str = "eth_getTransactionReceipt";
        let receipt = self.call(METHOD, json!([transaction])).await?;
        receipt
            .get("logs")
            .and_then(evidence::read_logs)
            .ok_or(RpcFault::Junk(METHOD))
    }

    async fn input_of(&self, transaction: B256) -> Result<Vec<u8>, RpcFault> {
        const METHOD: &str = "eth_getTransactionByHash";
        let found = self.call(METHOD, json!([transaction])).await?;
        found
            .get("input")
            .and_then(Value::as_str)
            .and_then(|text| hex::decode(text).ok())
            .ok_or(RpcFault::Junk(METHOD))
    }

    async fn call(&self, method: &'static str, params: Value) -> Result<Value, RpcFault> {
        if self.calls.fetch_add(1, Ordering::Relaxed) >= CALLS_MAX {
            return Err(RpcFault::TooManyCalls);
        }
        self.chain.rpc.call(method, params).await
    }
}

fn quantity(number: u64) -> String {
    format!("{number:#x}")
}

/// A JSON-RPC quantity of up to 64 bits.
fn number(value: &Value, method: &'static str) -> Result<u64, RpcFault> {
    value
        .as_str()
        .and_then(|text| text.strip_prefix("0x"))
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or(RpcFault::Junk(method))
}
