//! What inputs are declared as, for the errors that repeat it. A list of models has megabytes, and a prompt may be wrong in
//! ten thousand places: each is read once, and repeated until that is much.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use serde_json::Value;

use super::MAX_ECHO;
use crate::comfy::catalogue::Catalogue;
use crate::comfy::errors::clip;
use crate::comfy::python;

/// Of all declarations that the errors of one prompt repeat, as JSON. The rest are null, as ComfyUI's are of long lists.
const MAX_BYTES: usize = 4 << 20;

pub(super) struct Configs<'a> {
    catalogue: &'a Catalogue,
    /// By class and input.
    read: RefCell<HashMap<(String, String), Config>>,
    left: Cell<usize>,
}

#[derive(Clone)]
struct Config {
    value: Rc<Value>,
    /// Its length as JSON.
    bytes: usize,
    /// The type, or the choices, as Python prints them; cut.
    kind: Rc<str>,
}

impl<'a> Configs<'a> {
    pub(super) fn new(catalogue: &'a Catalogue) -> Self {
        Self { catalogue, read: RefCell::default(), left: Cell::new(MAX_BYTES) }
    }

    fn read(&self, class: &str, input: &str) -> Config {
        let read = || {
            let value = self.catalogue.input_config(class, input);
            let kind = python::text(&value[0]);
            let bytes = value.to_string().len();
            Config { value: Rc::new(value), bytes, kind: clip(&kind, MAX_ECHO).into() }
        };
        let mut known = self.read.borrow_mut();
        known.entry((class.to_owned(), input.to_owned())).or_insert_with(read).clone()
    }

    pub(super) fn whole(&self, class: &str, input: &str) -> Rc<Value> {
        self.read(class, input).value
    }

    pub(super) fn kind(&self, class: &str, input: &str) -> Rc<str> {
        self.read(class, input).kind
    }

    /// As an error shows it.
    pub(super) fn shown(&self, class: &str, input: &str) -> Value {
        let config = self.read(class, input);
        match self.left.get().checked_sub(config.bytes) {
            Some(left) => {
                self.left.set(left);
                (*config.value).clone()
            }
            None => Value::Null,
        }
    }
}
