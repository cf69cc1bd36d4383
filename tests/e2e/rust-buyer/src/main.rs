//! Pays for one GET with the stock client `x402-reqwest` and prints what came back as JSON.
//!
//! Usage: `BUYER_KEY=0x... rust-buyer URL`

use std::error::Error;
use std::sync::Arc;

use alloy_signer_local::PrivateKeySigner;
use x402_chain_eip155::V2Eip155ExactClient;
use x402_reqwest::{ReqwestWithPayments, ReqwestWithPaymentsBuild, X402Client};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).ok_or("the URL is missing")?;
    let signer: PrivateKeySigner = std::env::var("BUYER_KEY")?.parse()?;
    let payments = X402Client::new().register(V2Eip155ExactClient::new(Arc::new(signer)));
    let client = reqwest::Client::new().with_payments(payments).build();

    let response = client.get(url).send().await?;
    let status = response.status().as_u16();
    let receipt = response
        .headers()
        .get("payment-response")
        .map(|value| value.to_str().map(str::to_owned))
        .transpose()?;
    let body = response.text().await?;
    println!(
        "{}",
        serde_json::json!({ "status": status, "body": body, "receipt": receipt })
    );
    Ok(())
}
