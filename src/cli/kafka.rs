//! `assent kafka repartition`: an operator's word that the topic of events has other partitions now.

use super::Exit;
use super::serve::ServeArgs;
use crate::journal;
use crate::sinks::kafka::repartition;
use anyhow::Context;

#[derive(Debug, clap::Subcommand)]
pub enum KafkaCommand {
    /// Accept the topic's number of partitions, or raise it to --kafka-partitions first
    #[command(after_help = REPARTITION_HELP)]
    Repartition(Box<ServeArgs>),
}

const REPARTITION_HELP: &str = "\
An approval's events lie in one partition, in order, which one follows from its id and the number of partitions.
Where that number changed, events go on in another partition, and a consumer may see later ones before earlier ones:
a node refuses to go on until this command says that it may. Let consumers finish first where that matters.

Settings are those of the node: --data, --kafka-brokers, --kafka-partitions, --config and the environment.

Example: assent kafka repartition --data data --kafka-brokers 127.0.0.1:9092 --kafka-partitions 12";

pub fn run(command: KafkaCommand) -> anyhow::Result<Exit> {
    let KafkaCommand::Repartition(args) = command;
    let config = args.load()?;
    let meta = journal::describe(&config.data_dir)?;
    let options = config.kafka.options(meta.deployment)?;
    let options = options.context("no brokers: give --kafka-brokers, or set KAFKA_BROKERS")?;
    println!("{}", repartition(&options)?);
    Ok(Exit::Done)
}
