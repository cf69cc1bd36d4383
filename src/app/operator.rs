//! How an operator reaches a running wall: the admin listener, the control socket, SIGHUP.

use std::path::Path;

use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::admin::{self, Admin, AdminParts, Socket, Token};
use crate::app::StartError;
use crate::config::settings::Settings;
use crate::reload;
use crate::reload::control::Control;

/// The token that the settings name.
pub(super) fn admin_token(settings: &Settings) -> Result<Option<Token>, StartError> {
    let file = settings.server.admin_token_file.as_deref();
    Ok(file.map(Token::read).transpose()?)
}

/// Health, readiness, metrics and the admin API.
pub(super) fn serve_admin(
    settings: &Settings,
    parts: AdminParts,
    payments: &Runtime,
) -> Result<(), StartError> {
    let Some(address) = &settings.server.admin else {
        return Ok(());
    };
    let failed = |cause| StartError::Io {
        what: format!("admin listener {address}"),
        cause,
    };
    let socket = payments.block_on(Socket::bind(address)).map_err(failed)?;
    let admin = Admin::new(parts);
    payments.spawn(async move {
        if let Err(error) = admin::serve(socket, admin).await {
            tracing::error!(%error, "the admin listener ended");
        }
    });
    Ok(())
}

/// SIGHUP asks for a reload.
pub(super) fn hear_hangups(payments: &Runtime, reloads: reload::Handle) -> Result<(), StartError> {
    let _within = payments.enter();
    let mut hangups = signal(SignalKind::hangup()).map_err(|cause| StartError::Io {
        what: "cannot hear SIGHUP".to_owned(),
        cause,
    })?;
    payments.spawn(async move {
        while hangups.recv().await.is_some() {
            reloads.nudge();
        }
    });
    Ok(())
}

/// Commands to the running wall.
pub(super) fn serve_control(
    settings: &Settings,
    payments: &Runtime,
    reloads: &reload::Handle,
    config: &Path,
) -> Result<(), StartError> {
    let Some(control) = &settings.server.control else {
        return Ok(());
    };
    let _within = payments.enter();
    match Control::bind(&control.path) {
        Ok(socket) => {
            payments.spawn(socket.serve(reloads.clone(), config.to_owned()));
            Ok(())
        }
        Err(cause) if control.is_wanted => Err(StartError::Io {
            what: format!("control socket {}", control.path.display()),
            cause,
        }),
        // Nobody asked for it, and SIGHUP does the same.
        Err(error) => {
            let path = control.path.display();
            tracing::warn!(%path, %error, "no control socket; reload with SIGHUP");
            Ok(())
        }
    }
}
