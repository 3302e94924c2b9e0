use clap::Args;
#[derive(Debug, Args)]
pub(super) struct SimArgs {}
pub(super) fn run(_args: &SimArgs) -> anyhow::Result<()> {
    Ok(())
}
