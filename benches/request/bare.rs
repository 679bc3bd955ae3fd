//! What a node is measured beside: this program once more, as the echo, or a server that runs.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::Context;

use crate::server::{Server, UNKNOWN};

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
            http: UNKNOWN,
            grpc: UNKNOWN,
            process: child.id(),
            child: Some(child),
            _data: None,
        };
        let mut ports = String::new();
        BufReader::new(output).read_line(&mut ports)?;
        let (http, grpc) = ports.trim().split_once(' ').context("it says two ports")?;
        server.http.set_port(http.parse()?);
        server.grpc.set_port(grpc.parse()?);
        Ok(server)
    }

    /// One that runs: `HTTP,GRPC,PROCESS`, two ports of this machine and a process's id.
    ///
    /// # Errors
    /// It is none of that form.
    pub(crate) fn running(told: &str) -> anyhow::Result<Self> {
        let form = "a running server is told as HTTP,GRPC,PROCESS: two ports and a process's id";
        let parts: Vec<&str> = told.split(',').collect();
        let [http, grpc, process] = parts[..] else {
            anyhow::bail!("{form}; got '{told}'");
        };
        let mut server = Self {
            http: UNKNOWN,
            grpc: UNKNOWN,
            process: process.parse().context(form)?,
            child: None,
            _data: None,
        };
        server.http.set_port(http.parse().context(form)?);
        server.grpc.set_port(grpc.parse().context(form)?);
        Ok(server)
    }
}
