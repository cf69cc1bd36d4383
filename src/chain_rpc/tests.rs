//! What the chain is asked, and what is made of its answers.

use std::time::Duration;

use alloy_primitives::{U256, keccak256};

use super::fake::{FakeChain, FakeLog, transfer, word};
use super::*;
use crate::config::settings::NetworkSettings;
use crate::x402::permit2::PERMIT2;

const CHAIN: u64 = 84_532;
const NOW: u64 = 1_800_000_000;
const HEAD: u64 = 1_000_000;
const VALUE: u64 = 10_000;
const TOKEN: Address = Address::repeat_byte(0x70);
const PAYER: Address = Address::repeat_byte(0xa1);
const PAY_TO: Address = Address::repeat_byte(0xb2);
const OTHER: Address = Address::repeat_byte(0xc3);
const ROUTE: (Address, Address, Address) = (TOKEN, PAYER, PAY_TO);
const NONCE: B256 = B256::repeat_byte(9);
const PAID: Finding = Finding::Paid {
    transaction: B256::repeat_byte(0x77),
};

fn settings(url: String, confirmations: u64) -> NetworkSettings {
    NetworkSettings {
        network: Network::parse_caip2("eip155:84532").unwrap(),
        rpc_url: url,
        rpc_timeout: Duration::from_secs(5),
        confirmations,
    }
}

fn question(space: NonceSpace) -> Question {
    Question {
        token: TOKEN,
        payer: PAYER,
        pay_to: PAY_TO,
        amount: AtomicAmount::new(VALUE.into()),
        nonce: Nonce {
            space,
            bytes: NONCE,
        },
        signature: vec![5; 65],
        claimed_at: UnixSeconds(NOW - 60),
        valid_before: UnixSeconds(NOW + 240),
    }
}

async fn fake() -> (FakeChain, EvmChain) {
    let fake = FakeChain::start(CHAIN, NOW, HEAD).await;
    let chain = EvmChain::new(&settings(fake.url(), 2), None).unwrap();
    (fake, chain)
}

async fn look(chain: &EvmChain, space: NonceSpace) -> Finding {
    chain.look(&question(space)).await.unwrap()
}

#[tokio::test]
async fn a_payment_is_believed_when_it_is_deep_enough() {
    let (fake, chain) = fake().await;
    let transaction = fake.settle(HEAD - 1, ROUTE, VALUE, NONCE);
    let as_of = UnixSeconds(NOW - 2);
    assert_eq!(
        look(&chain, NonceSpace::Eip3009).await,
        Finding::Unused { as_of }
    );
    fake.with(|script| script.head += 1);
    let found = look(&chain, NonceSpace::Eip3009).await;
    assert_eq!(found, Finding::Paid { transaction });
    let asked = fake.with(|script| script.calls.clone());
    let count = |name: &str| asked.iter().filter(|method| *method == name).count();
    assert_eq!(count("eth_chainId"), 1, "asked once");
    assert_eq!(count("eth_getTransactionReceipt"), 1);
    assert!(asked.len() < 100, "{}", asked.len());
}

#[tokio::test]
async fn what_was_never_used_is_over_when_the_time_of_a_deep_block_says_so() {
    let (fake, chain) = fake().await;
    let mut late = question(NonceSpace::Eip3009);
    let as_of = UnixSeconds(NOW - 2);
    let unused = Finding::Unused { as_of };
    for (valid_before, want) in [
        (NOW - 2, unused),
        (NOW - 3, Finding::NeverUsed),
        (NOW, unused),
    ] {
        late.valid_before = UnixSeconds(valid_before);
        assert_eq!(chain.look(&late).await.unwrap(), want, "{valid_before}");
    }
    drop(fake);
}

#[tokio::test]
async fn a_cancelled_or_diverted_authorization_is_told_from_a_payment() {
    let (fake_chain, chain) = fake().await;
    fake_chain.cancel(HEAD - 20, TOKEN, PAYER, NONCE);
    assert_eq!(look(&chain, NonceSpace::Eip3009).await, Finding::Cancelled);
    let (fake_chain, chain) = fake().await;
    fake_chain.settle(HEAD - 20, (TOKEN, PAYER, OTHER), VALUE, NONCE);
    assert_eq!(
        look(&chain, NonceSpace::Eip3009).await,
        Finding::UsedElsewhere
    );
}

#[tokio::test]
async fn a_used_nonce_without_its_log_proves_nothing() {
    let (fake, chain) = fake().await;
    fake.settle(HEAD - 5000, ROUTE, VALUE, NONCE);
    let found = look(&chain, NonceSpace::Eip3009).await;
    assert!(matches!(found, Finding::Unexplained(_)), "{found:?}");
}

#[tokio::test]
async fn a_node_that_allows_few_blocks_is_asked_in_smaller_steps() {
    let (fake, chain) = fake().await;
    let transaction = fake.settle(HEAD - 20, ROUTE, VALUE, NONCE);
    fake.with(|script| script.log_blocks_max = 40);
    let found = look(&chain, NonceSpace::Eip3009).await;
    assert_eq!(found, Finding::Paid { transaction });
    fake.with(|script| script.log_blocks_max = 0);
    let fault = chain.look(&question(NonceSpace::Eip3009)).await;
    assert!(matches!(fault, Err(RpcFault::Refused { .. })), "{fault:?}");
}

#[tokio::test]
async fn a_short_chain_is_searched_to_its_first_block() {
    let fake = FakeChain::start(CHAIN, NOW, 5).await;
    let chain = EvmChain::new(&settings(fake.url(), 0), None).unwrap();
    let transaction = fake.settle(0, ROUTE, VALUE, NONCE);
    assert_eq!(
        look(&chain, NonceSpace::Eip3009).await,
        Finding::Paid { transaction }
    );
    let deeper = EvmChain::new(&settings(fake.url(), 6), None).unwrap();
    let as_of = UnixSeconds(0);
    assert_eq!(
        look(&deeper, NonceSpace::Eip3009).await,
        Finding::Unused { as_of }
    );
}

#[tokio::test]
async fn another_chain_and_a_broken_node_are_no_answer() {
    let fake = FakeChain::start(1, NOW, HEAD).await;
    let chain = EvmChain::new(&settings(fake.url(), 2), None).unwrap();
    fake.settle(HEAD - 20, ROUTE, VALUE, NONCE);
    let fault = chain.look(&question(NonceSpace::Eip3009)).await;
    assert!(
        matches!(
            fault,
            Err(RpcFault::WrongChain {
                found: 1,
                wanted: CHAIN
            })
        ),
        "{fault:?}"
    );
    fake.with(|script| script.broken = Some(503));
    let fault = chain.look(&question(NonceSpace::Eip3009)).await;
    assert!(matches!(fault, Err(RpcFault::Status(503))), "{fault:?}");
    let nobody = settings("http://127.0.0.1:9/secret-key".to_owned(), 2);
    let nobody = EvmChain::new(&nobody, None).unwrap();
    let fault = nobody
        .look(&question(NonceSpace::Eip3009))
        .await
        .unwrap_err();
    assert!(!fault.to_string().contains("secret-key"), "{fault}");
}

/// A Permit2 payment of `value` to `to` in transaction 0x77…, which carries `input`.
async fn permit2(to: Address, value: u64, input: &[u8], more: Vec<FakeLog>) -> Finding {
    let (fake, chain) = fake().await;
    fake.with(|script| {
        let transaction = B256::repeat_byte(0x77);
        let number = U256::from_be_bytes(NONCE.0);
        script
            .bitmap
            .push((number.wrapping_shr(8), U256::ONE.wrapping_shl(9)));
        let route = (TOKEN, PAYER, to);
        script
            .logs
            .push(transfer(HEAD - 20, transaction, route, value));
        script.logs.extend(more);
        script.inputs.push((transaction, input.to_vec()));
    });
    look(&chain, NonceSpace::Permit2).await
}

#[tokio::test]
async fn a_permit2_payment_is_known_by_its_signature() {
    let signed = [&[1; 7][..], &[5; 64], &[2; 9]].concat();
    assert_eq!(permit2(PAY_TO, VALUE, &signed, vec![]).await, PAID);
    let elsewhere = permit2(OTHER, VALUE, &signed, vec![]).await;
    assert_eq!(elsewhere, Finding::UsedElsewhere);
    let transaction = B256::repeat_byte(0x77);
    for found in [
        permit2(PAY_TO, VALUE, &[5; 63], vec![]).await,
        permit2(PAY_TO, VALUE - 1, &signed, vec![]).await,
        permit2(
            PAY_TO,
            VALUE,
            &signed,
            vec![transfer(HEAD - 20, transaction, ROUTE, VALUE)],
        )
        .await,
    ] {
        assert!(matches!(found, Finding::Unexplained(_)), "{found:?}");
    }
}

#[tokio::test]
async fn an_invalidated_permit2_nonce_is_cancelled() {
    let number: U256 = U256::from_be_bytes(NONCE.0).wrapping_shr(8);
    let invalidation = |mask: U256| FakeLog {
        block: HEAD - 30,
        transaction: B256::repeat_byte(0x66),
        address: PERMIT2,
        topics: vec![
            keccak256("UnorderedNonceInvalidation(address,uint256,uint256)"),
            word(PAYER),
        ],
        data: [number.to_be_bytes::<32>(), mask.to_be_bytes::<32>()].concat(),
    };
    let ours = vec![invalidation(U256::from(0x301))];
    assert_eq!(permit2(OTHER, VALUE, &[], ours).await, Finding::Cancelled);
    let others = vec![invalidation(U256::from(0x101))];
    assert_eq!(
        permit2(OTHER, VALUE, &[], others).await,
        Finding::UsedElsewhere
    );
}

#[tokio::test]
async fn an_unused_permit2_nonce_is_unused() {
    let (fake, chain) = fake().await;
    fake.with(|script| {
        let word: U256 = U256::from_be_bytes(NONCE.0).wrapping_shr(8);
        let ours: U256 = U256::ONE.wrapping_shl(9);
        script.bitmap.push((word, !ours));
    });
    let unused = look(&chain, NonceSpace::Permit2).await;
    assert!(matches!(unused, Finding::Unused { .. }), "{unused:?}");
}

mod pairing {
    use super::super::evidence::{Log, judge_use};
    use super::*;

    fn log(topics: Vec<B256>, value: Option<u64>) -> Log {
        Log {
            address: TOKEN,
            topics,
            data: value.map_or(Vec::new(), |v| U256::from(v).to_be_bytes::<32>().to_vec()),
            transaction: B256::repeat_byte(0x77),
        }
    }

    fn used(nonce: u8) -> Log {
        let event = keccak256("AuthorizationUsed(address,bytes32)");
        log(vec![event, word(PAYER), B256::repeat_byte(nonce)], None)
    }

    fn sent(to: Address, value: u64) -> Log {
        let event = keccak256("Transfer(address,address,uint256)");
        log(vec![event, word(PAYER), word(to)], Some(value))
    }

    fn elsewhere(mut log: Log) -> Log {
        log.address = OTHER;
        log
    }

    #[track_caller]
    fn check(logs: &[Log], want: Option<Finding>) {
        let question = question(NonceSpace::Eip3009);
        let got = judge_use(&question, B256::repeat_byte(0x77), logs);
        match want {
            Some(want) => assert_eq!(got, want, "{logs:?}"),
            None => assert!(matches!(got, Finding::Unexplained(_)), "{got:?} {logs:?}"),
        }
    }

    #[test]
    fn the_transfer_right_behind_the_use_decides() {
        check(&[used(9), sent(PAY_TO, VALUE)], Some(PAID));
        check(
            &[used(8), sent(PAY_TO, VALUE), used(9), sent(PAY_TO, VALUE)],
            Some(PAID),
        );
        check(
            &[used(9), elsewhere(sent(OTHER, 1)), sent(PAY_TO, VALUE)],
            Some(PAID),
        );
        check(&[used(9), sent(OTHER, VALUE)], Some(Finding::UsedElsewhere));
        check(&[used(9)], Some(Finding::UsedElsewhere));
    }

    #[test]
    fn a_payment_for_another_authorization_of_the_same_transaction_does_not_count_twice() {
        check(
            &[used(9), sent(OTHER, VALUE), used(8), sent(PAY_TO, VALUE)],
            None,
        );
        check(&[sent(PAY_TO, VALUE), used(9), sent(OTHER, VALUE)], None);
    }

    #[test]
    fn another_amount_another_token_and_a_missing_use_are_no_payment() {
        check(&[used(9), sent(PAY_TO, VALUE - 1)], None);
        check(&[used(9), sent(PAY_TO, VALUE + 1)], None);
        check(
            &[used(9), elsewhere(sent(PAY_TO, VALUE))],
            Some(Finding::UsedElsewhere),
        );
        check(&[used(8), sent(PAY_TO, VALUE)], None);
        check(&[elsewhere(used(9)), sent(PAY_TO, VALUE)], None);
    }
}
