//! The hot path of Callfold, compiled: what `pipeline/providers`, `pipeline/assemble` and `pipeline/lake/rows.py` say
//! in Python, for ordinary webhooks. Python's is what is meant; tests hold the two to be the same.

mod assembler;
mod batches;
mod changes;
mod columns;
mod credentials;
mod cut;
mod decode;
mod departed;
mod events;
mod facts;
mod fold;
mod lines;
mod memory;
mod messages;
mod model;
mod probes;
mod reader;
mod records;
mod redial;
mod settle;
mod stream;
mod timetable;
mod told;
mod trim;
mod word;

use pyo3::prelude::*;

/// For what this library allocates; Python, Arrow and DuckDB have their own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<assembler::Assembler>()?;
    module.add_class::<batches::Messages>()?;
    module.add_class::<batches::Batches>()?;
    module.add_class::<changes::Changes>()?;
    module.add_class::<events::Events>()?;
    module.add_class::<reader::Reader>()?;
    module.add_class::<records::Records>()?;
    module.add_class::<records::KafkaRecord>()?;
    module.add_class::<lines::LineReader>()?;
    module.add_class::<lines::Taken>()?;
    probes::add_to(module)
}
