//! Page cursors of every list (contract D4): opaque, authenticated, bound to their list and filter.

use domain::cursor::{CursorKey, CursorKind, InvalidCursor, Position};
use domain::id::ProjectId;
use domain::secret::KeyUse;

use super::app::App;
use super::error::{ApiError, ApiResult};

/// The cursors of one list of one project, for one filter.
pub struct Cursors<'a> {
    key: CursorKey,
    kind: CursorKind,
    filter: &'a [u8],
}

impl<'a> Cursors<'a> {
    pub fn new(app: &App, project: ProjectId, kind: CursorKind, filter: &'a [u8]) -> Self {
        let key = CursorKey::new(app.master.site_key(KeyUse::Cursor, project).as_bytes());
        Self { key, kind, filter }
    }

    /// Where the page of a cursor starts; `None` without one.
    pub fn open(&self, text: Option<&str>) -> ApiResult<Option<Position>> {
        text.map(|text| self.key.open(text, self.kind, self.filter)).transpose().map_err(ApiError::from)
    }

    /// The cursor that continues after a row.
    pub fn seal(&self, position: Position) -> String {
        self.key.seal(self.kind, position, self.filter)
    }
}

impl From<InvalidCursor> for ApiError {
    fn from(_: InvalidCursor) -> Self {
        let message = "the cursor is not one of this list with these filters; start again without it".to_owned();
        Self::BadRequest { code: "invalid_cursor", message }
    }
}
