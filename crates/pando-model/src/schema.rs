//! JSON schemas of the values that are written as text: names, addresses and ids. All of them are
//! plain strings to a client; the pattern says which strings can be right.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::address::Address;
use crate::id::{
    BranchId, CaptureId, ClusterId, CommitId, FaultId, ImageId, JournalId, LayerId, OperationId,
    RequestId,
};
use crate::name::Name;

macro_rules! text_schema {
    ($($type:ty, $title:literal, $pattern:literal;)*) => {$(
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                Cow::Borrowed($title)
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    )*};
}

text_schema! {
    Name, "Name", "^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$";
    Address, "Address", "^[a-z0-9._-]+(@[a-z0-9._-]+)?(/[a-z0-9._-]+)?$";
    ClusterId, "ClusterId", "^cl_[0-9a-z]{12}$";
    BranchId, "BranchId", "^br_[0-9a-z]{12}$";
    CommitId, "CommitId", "^cm_[0-9a-z]{12}$";
    ImageId, "ImageId", "^im_[0-9a-z]{12}$";
    LayerId, "LayerId", "^ly_[0-9a-z]{12}$";
    OperationId, "OperationId", "^op_[0-9a-z]{12}$";
    RequestId, "RequestId", "^rq_[0-9a-z]{12}$";
    JournalId, "JournalId", "^jr_[0-9a-z]{12}$";
    CaptureId, "CaptureId", "^cp_[0-9a-z]{12}$";
    FaultId, "FaultId", "^ft_[0-9a-z]{12}$";
}
