//! The closed list of tables, the same on every engine.
//!
//! A row is (partition key, clustering key) -> one versioned value, all three byte strings. Keys are
//! order-preserving: big-endian integers and fixed-width ids, a text only as the last part.

/// A table. Its tag is the first byte of an embedded key and never changes; a retired tag is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// (project, layout, bucket, sub) | id, writer -> header and reports. Readers unite rows of equal id.
    Task = 1,
    /// (project, task key) | claim -> id. Conditional writes only.
    TaskAt = 2,
    /// (project, root key) | id -> nothing. Members of a tree in time order, the root excepted.
    TaskRoot = 3,
    /// (project, day) | bucket, layout, sub -> nothing. Says that a partition of `Task` exists.
    Segment = 4,
    /// (project, chunk) | seq -> entry, hash, mac. Conditional writes only.
    Ledger = 6,
    /// (project) | - -> seq, hash, open commands. A hint to start a fold from.
    LedgerHead = 7,
    /// (project, day) | command id -> projection of the ledger, stamped with its seq.
    Command = 8,
    /// (project, command) | n -> frozen ids of a bulk command.
    CommandChunk = 9,
    /// (project, idempotency key) | - -> command id, request hash; stamped with its seq.
    Idem = 10,
    /// (project, day) | minute, shard, epoch -> counts. A cache of task rows.
    Stat = 11,
    /// (project, day) | id -> frame that can never be stored, and why.
    DeadLetter = 12,
    /// (n of 64) | project -> projects with open commands; stamped with the ledger's seq.
    Open = 13,
    /// (shard) | - -> epoch, node. Conditional writes only.
    Ownership = 14,
    /// (project, agent) | worker, session -> one row per live session.
    Directory = 15,
    /// () | node -> heartbeat counter and address.
    Node = 16,
    /// () | project -> project.
    Project = 17,
    /// () | user -> user.
    User = 18,
    /// (project) | user -> role.
    Membership = 19,
    /// (user) | project -> role. The same facts the other way round.
    MembershipOfUser = 20,
    /// () | api key -> api key.
    ApiKey = 21,
    /// (hash of the session secret) | - -> session of a user.
    WebSession = 22,
    /// (project) | agent -> agent.
    Agent = 23,
    /// (kind and hash of a secret) | - -> whose it is: agent tokens, API keys.
    Secret = 24,
    /// (project) | engine, agent, name -> engine worker as that agent names it. Readers unite them by name.
    Worker = 25,
    /// (project) | engine, agent, name -> queue as that agent names it.
    Queue = 26,
    /// () | name -> setting of the whole installation.
    Setting = 27,
    /// (kind, scope, name) | - -> owner. Uniqueness of slugs, e-mails, names. Conditional writes only.
    Unique = 28,
    /// (project) | agent, worker id -> process that connected with an agent's token.
    AgentWorker = 29,
    /// (user) | session -> hash of the session secret.
    WebSessionOfUser = 30,
    /// (project, agent) | time -> status snapshots of an agent.
    AgentStatus = 31,
    /// (project, layout, bucket, sub, mark) | zone, nonce -> ids of tasks whose rows got what the mark says.
    TaskMark = 32,
    /// (project) | what, state, recorder, writer -> ids of open tasks, and from which id on tasks are marked.
    TaskOpen = 33,
}

impl Table {
    pub const ALL: [Self; 32] = [
        Self::Task,
        Self::TaskAt,
        Self::TaskRoot,
        Self::Segment,
        Self::Ledger,
        Self::LedgerHead,
        Self::Command,
        Self::CommandChunk,
        Self::Idem,
        Self::Stat,
        Self::DeadLetter,
        Self::Open,
        Self::Ownership,
        Self::Directory,
        Self::Node,
        Self::Project,
        Self::User,
        Self::Membership,
        Self::MembershipOfUser,
        Self::ApiKey,
        Self::WebSession,
        Self::Agent,
        Self::Secret,
        Self::Worker,
        Self::Queue,
        Self::Setting,
        Self::Unique,
        Self::AgentWorker,
        Self::WebSessionOfUser,
        Self::AgentStatus,
        Self::TaskMark,
        Self::TaskOpen,
    ];

    pub const fn tag(self) -> u8 {
        self as u8
    }

    /// The table's name in CQL.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::TaskAt => "task_at",
            Self::TaskRoot => "task_root",
            Self::Segment => "segment",
            Self::Ledger => "ledger",
            Self::LedgerHead => "ledger_head",
            Self::Command => "command",
            Self::CommandChunk => "command_chunk",
            Self::Idem => "idem",
            Self::Stat => "stat",
            Self::DeadLetter => "dead_letter",
            Self::Open => "open",
            Self::Ownership => "ownership",
            Self::Directory => "directory",
            Self::Node => "node",
            Self::Project => "project",
            Self::User => "user",
            Self::Membership => "membership",
            Self::MembershipOfUser => "membership_of_user",
            Self::ApiKey => "api_key",
            Self::WebSession => "web_session",
            Self::Agent => "agent",
            Self::Secret => "secret",
            Self::Worker => "worker",
            Self::Queue => "queue",
            Self::Setting => "setting",
            Self::Unique => "unique",
            Self::AgentWorker => "agent_worker",
            Self::WebSessionOfUser => "web_session_of_user",
            Self::AgentStatus => "agent_status",
            Self::TaskMark => "task_mark",
            Self::TaskOpen => "task_open",
        }
    }

    /// For tables whose old rows lie together, project by project: how many leading bytes of the partition come
    /// before the time. The embedded engine sweeps expired rows from there.
    pub const fn lead(self) -> Option<usize> {
        match self {
            // project and layout
            Self::Task | Self::TaskMark => Some(17),
            Self::Segment | Self::Command | Self::Stat | Self::DeadLetter => Some(16),
            // The time is in the clustering key.
            Self::AgentStatus => Some(usize::MAX),
            Self::TaskAt
            | Self::TaskRoot
            | Self::Ledger
            | Self::LedgerHead
            | Self::CommandChunk
            | Self::Idem
            | Self::Open
            | Self::Ownership
            | Self::Directory
            | Self::Node
            | Self::Project
            | Self::User
            | Self::Membership
            | Self::MembershipOfUser
            | Self::ApiKey
            | Self::WebSession
            | Self::Agent
            | Self::Secret
            | Self::Worker
            | Self::Queue
            | Self::Setting
            | Self::Unique
            | Self::AgentWorker
            | Self::WebSessionOfUser
            | Self::TaskOpen => None,
        }
    }

    /// Whether every write of the table is conditional: on CQL a table is wholly one or the other.
    pub const fn is_conditional(self) -> bool {
        matches!(self, Self::TaskAt | Self::Ledger | Self::Ownership | Self::Unique)
    }
}
