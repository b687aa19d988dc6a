//! A new home activates the projects that have open commands: nobody else would time them out.

use std::time::Duration;

use cql::StoreError;
use cql::ledger::open;

use crate::mesh::Mesh;

const RETRY: Duration = Duration::from_secs(1);

/// Activates every project with open commands, and does not give up while the store is away.
pub(crate) async fn wake_open_projects(mesh: Mesh) {
    for partition in 0..open::PARTITIONS {
        while let Err(error) = wake_partition(&mesh, partition).await {
            tracing::warn!(partition, error = %error, "projects with open commands are not all awake");
            tokio::select! {
                () = tokio::time::sleep(RETRY) => {}
                () = mesh.drain().cancelled_owned() => return,
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Asleep {
    #[error("the store did not answer")]
    Store(#[from] StoreError),
    #[error("a project does not start")]
    Project,
}

async fn wake_partition(mesh: &Mesh, partition: u8) -> Result<(), Asleep> {
    let mut asleep = false;
    for project in open::projects(&**mesh.store(), partition).await? {
        asleep |= mesh.project(project).await.is_err();
    }
    if asleep { Err(Asleep::Project) } else { Ok(()) }
}
