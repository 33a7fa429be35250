//! Pages of tasks, once for every database.
//!
//! `lists!` makes the functions beside those of `reads!`, whose names they use.

/// The same for either table of tasks. From `$first` on its states have an index that is told by `$least`.
macro_rules! table {
    (
        $conn:ty, $db:ty, [$($async:tt)*], [$($wait:tt)*],
        $table:ident, $row:ty, $floor:ident, $page:ident, ($first:expr, $least:expr)
    ) => {
        /// The oldest task that is looked at; none, where all are.
        $($async)* fn $floor(conn: &mut $conn, filter: &TaskFilter) -> QueryResult<Option<TaskId>> {
            use $table::dsl;
            let mut query = dsl::$table.select(dsl::id).into_boxed::<$db>();
            if filter.state.is_some_and(|state| state >= $first) {
                query = query.filter(dsl::state.ge($least));
            }
            if let Some(before) = filter.before {
                query = query.filter(dsl::id.lt(Id::from(before)));
            }
            let last = query.order(dsl::id.desc()).offset(SCAN_LIMIT - 1).limit(1);
            let floor: Option<Id> = last.first(conn)$($wait)*.optional()?;
            Ok(floor.map(TaskId::from))
        }

        /// Those that the filter means, no older than the floor.
        $($async)* fn $page(
            conn: &mut $conn,
            filter: &TaskFilter,
            floor: Option<TaskId>,
        ) -> QueryResult<Vec<$row>> {
            use $table::dsl;
            let mut query = dsl::$table.select(<$row>::as_select()).into_boxed::<$db>();
            if let Some(floor) = floor {
                query = query.filter(dsl::id.ge(Id::from(floor)));
            }
            if let Some(state) = filter.state {
                if state >= $first {
                    query = query.filter(dsl::state.ge($least));
                }
                query = query.filter(dsl::state.eq(state as i16));
            }
            match &filter.target {
                None => {}
                Some(Targets::One(target)) => query = query.filter(dsl::target.eq(target.to_string())),
                Some(Targets::Beginning(beginning)) => {
                    let begins = substr(dsl::target, 1, letters(beginning));
                    query = query.filter(begins.eq(beginning));
                }
            }
            if let Some([first, later]) = filter.tag.as_deref().map(tag_places) {
                let has = |place| replace(dsl::tags, place, "").ne(dsl::tags);
                query = query.filter(has(first).or(has(later)));
            }
            if let Some(before) = filter.before {
                query = query.filter(dsl::id.lt(Id::from(before)));
            }
            query.order(dsl::id.desc()).limit(page(filter.limit)).load(conn)$($wait)*
        }
    };
}
pub(super) use table;

macro_rules! lists {
    ($conn:ty, $db:ty, [$($async:tt)*], [$($wait:tt)*]) => {
        /// One page of tasks, newest first. One that ends between the two reads is told once, as ended.
        pub(super) $($async)* fn tasks(conn: &mut $conn, filter: &TaskFilter) -> Result<TaskPage, StoreError> {
            let (open, ended) =
                (filter.state.is_none_or(|s| !s.is_final()), filter.state.is_none_or(TaskState::is_final));
            let mut looked_to = None;
            if open && filter.leaves_out() {
                looked_to = looked_to.max(hot_floor(conn, filter)$($wait)*.map_err(sql)?);
            }
            if ended && filter.leaves_out() {
                looked_to = looked_to.max(archived_floor(conn, filter)$($wait)*.map_err(sql)?);
            }
            let mut items = Vec::new();
            if open {
                for row in hot_page(conn, filter, looked_to)$($wait)*.map_err(sql)? {
                    items.push(row.into_view()?);
                }
            }
            if ended {
                for row in archived_page(conn, filter, looked_to)$($wait)*.map_err(sql)? {
                    items.push(row.into_view()?);
                }
            }
            items.sort_by_key(|v| std::cmp::Reverse((v.id, v.state)));
            items.dedup_by_key(|v| v.id);
            items.truncate(filter.limit.clamp(1, MAX_PAGE));
            Ok(TaskPage { items, looked_to })
        }

        $crate::store::lists::table!(
            $conn, $db, [$($async)*], [$($wait)*],
            greenroom_tasks, ListedTask, hot_floor, hot_page, (TaskState::Running, RUNNING)
        );
        $crate::store::lists::table!(
            $conn, $db, [$($async)*], [$($wait)*],
            greenroom_task_archive, ListedEnd, archived_floor, archived_page, (TaskState::Failed, FAILED)
        );

        /// One look at what failed or was cancelled, newest first.
        pub(super) $($async)* fn dead(
            conn: &mut $conn,
            before: Option<TaskId>,
            limit: usize,
        ) -> Result<Vec<DeadTask>, StoreError> {
            use greenroom_task_archive::dsl;
            let mut query = dsl::greenroom_task_archive
                .filter(dsl::state.ge(FAILED))
                .select((dsl::id, dsl::state, dsl::target, dsl::tags, part(dsl::error, 1, ERROR_BYTES)))
                .into_boxed::<$db>();
            if let Some(before) = before {
                query = query.filter(dsl::id.lt(Id::from(before)));
            }
            let query = query.order(dsl::id.desc()).limit(page(limit));
            type Dead = (Id, i16, String, Option<String>, Option<Vec<u8>>);
            let rows: Vec<Dead> = query.load(conn)$($wait)*.map_err(sql)?;
            let dead = |(id, state, target, tags, error): Dead| {
                Ok(DeadTask {
                    id: id.into(),
                    state: state_of(state)?,
                    target: target_of(&target),
                    tags: tags_of(tags.as_deref()),
                    code: error.as_deref().and_then(error_of_beginning).map(|error| error.code),
                })
            };
            rows.into_iter().map(dead).collect()
        }
    };
}
pub(super) use lists;
