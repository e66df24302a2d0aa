//! The `weft` command. Parses the command line, calls the engine, prints; computes nothing itself but samples' data.

mod args;
mod bench;
mod classifier;
mod compile;
mod convert;
mod demo;
mod devices;
mod digits;
mod embed;
mod explain;
mod failure;
mod inspect;
mod output;
mod passages;
mod random;
mod run;
mod search;
mod train_digits;
mod tune;
mod weight_report;

use args::{Args, Command};
use clap::Parser;
use failure::Result;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args = Args::parse();
    let mut out = std::io::BufWriter::new(output::report(args.command.writes()));
    let done = command(&args, &mut out).and_then(|()| Ok(out.flush()?));
    // writes the trace requested by WEFT_TRACE, also if the command failed
    let done = done.and(weft::device::trace::flush().map_err(Into::into));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = out.flush(); // output from before the failure; the failure is what counts
            failure.report()
        }
    }
}

fn command(args: &Args, out: &mut dyn Write) -> Result<()> {
    let options = &args.options;
    match &args.command {
        Command::Demo(demo) => demo::demo(demo, options, out),
        Command::Devices(devices) => devices::devices(devices, options, out),
        Command::Compile(compile) => compile::compile(compile, options, out),
        Command::Convert(args) => convert::convert(args, options, out),
        Command::Inspect(inspect) => inspect::inspect(inspect, options, out),
        Command::Embed(embed) => embed::embed(embed, options, out),
        Command::Search(search) => search::search(search, options, out),
        Command::Explain(explain) => explain::explain(explain, options, out),
        Command::Run(run) => run::run(run, options, out),
        Command::Bench(bench) => bench::bench(bench, options, out),
        Command::Tune(args) => tune::tune(args, options, out),
        Command::TrainDigits(train) => train_digits::train_digits(train, options, out),
    }
}
