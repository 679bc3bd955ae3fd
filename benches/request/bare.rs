//! The bare server: this program once more, as the echo.

use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

use anyhow::Context;

use crate::server::Server;

impl Server {
    /// The bare server.
    pub(crate) fn echo() -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--echo")
            // Held open: the server ends with us.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the echo server does not start")?;
        let output = child.stdout.take().context("its output is piped")?;
        let mut server = Self {
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            child,
            _data: None,
        };
        let mut port = String::new();
        BufReader::new(output).read_line(&mut port)?;
        server
            .address
            .set_port(port.trim().parse().context("it says its port")?);
        Ok(server)
    }
}
