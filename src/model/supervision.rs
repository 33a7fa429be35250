//! Supervision decides here, alone.
