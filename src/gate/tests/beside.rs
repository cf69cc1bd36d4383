//! A wall while another process may use its ledger: who works on a debt.

use super::*;
use crate::ledger::ClaimId;
use crate::ledger::sqlite::presence::Presence;

/// A world that is alone, and its place among the users of the ledger.
fn alone() -> (World, Arc<Presence>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let wall = Arc::new(Presence::alone(&path).unwrap());
    let ledger = SqliteLedger::open_as_wall(&path, Arc::clone(&wall)).unwrap();
    (World::on(directory, Arc::new(ledger)), wall)
}

/// The process that takes its place: it keeps a ledger of its own on the file.
fn successor(world: &World, wall: &Presence) -> SqliteLedger {
    let path = world._directory.path().join("ledger.db");
    wall.set_company(true);
    let new = Presence::beside(&path, wall.lock_to_hand_over().unwrap()).unwrap();
    SqliteLedger::open_as_wall(&path, Arc::new(new)).unwrap()
}

/// Paid, and not delivered.
async fn owed(world: &World) -> ClaimId {
    let mut paid = world.admitted(1, "/a").await;
    assert!(world.release(&mut paid).await);
    world.finish(paid, false).await;
    let records = world.ledger.list(Filter::default()).await.unwrap();
    records[0].id
}

#[tokio::test]
async fn a_collection_that_began_before_another_process_came_is_in_hand() {
    let (world, wall) = alone();
    let id = owed(&world).await;
    let collecting = world.admitted(1, "/a").await;
    let other = successor(&world, &wall);
    assert!(!other.take_owed(id).await.unwrap(), "it is being collected");
    drop(collecting);
    world.rest().await;
    // A write of the same process that comes after it.
    drop(world.admitted(2, "/a").await);
    assert!(other.take_owed(id).await.unwrap());
    let refused = world.present(1, "/a").await.unwrap_err();
    assert!(matches!(refused, PaymentRefusal::InProgress), "{refused}");
}

#[tokio::test]
async fn a_copy_takes_a_debt_in_hand_only_after_the_one_before_has_let_it_go() {
    let (world, wall) = alone();
    let id = owed(&world).await;
    let other = successor(&world, &wall);
    drop(world.admitted(1, "/a").await);
    // At once: what lets it go is a task that has not run.
    let collecting = world.admitted(1, "/a").await;
    world.rest().await;
    drop(world.admitted(2, "/a").await);
    world.rest().await;
    assert!(!other.take_owed(id).await.unwrap(), "it is being collected");
    drop(collecting);
}

#[tokio::test]
async fn a_debt_is_collected_under_another_name_of_its_rule_while_two_processes_live() {
    let (mut world, wall) = alone();
    let id = owed(&world).await;
    let other = successor(&world, &wall);
    let mut renamed = rules(&[("/{name}", priced(PRICE))]);
    for rule in &mut renamed {
        rule.name = "another".into();
    }
    let routes = RouteTable::build(&settings(renamed), &SupportedBook::new()).unwrap();
    let limits = world.gate.limits.clone();
    let verifier = world.gate.verifier();
    let verifier = verifier.successor(verifier.facilitators().as_ref().clone(), false);
    world.gate = world.gate.successor(routes, verifier, limits);
    assert!(other.take_owed(id).await.unwrap());
    let refused = world.present(1, "/a").await.unwrap_err();
    assert!(
        matches!(refused, PaymentRefusal::InProgress),
        "the other one works on it: {refused}"
    );
    other.let_go(id);
    while world.present(1, "/a").await.is_err() {}
    assert!(matches!(
        world.present(1, "/b").await.unwrap_err(),
        PaymentRefusal::Spent
    ));
}
