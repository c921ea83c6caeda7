//! What a person can do about a refusal; shown on a terminal, below the error.

/// The hint for an AWS error code, where the operation has none of its own.
pub(super) fn hint(code: &str) -> Option<&'static str> {
    Some(match code {
        "InvalidCiphertextException" => {
            "the blob must be whole and the encryption context the one of Encrypt, every pair of it; the trail has it: \
             blockseal cloudtrail lookup-events --lookup-attributes AttributeKey=EventName,AttributeValue=Encrypt"
        }
        "IncorrectKeyException" => "leave --key-id out: the blob names its key",
        "NotFoundException" => {
            "blockseal kms list-keys and list-aliases show what there is; --account and --region say where"
        }
        "AccessDeniedException" | "UnauthorizedOperation" => {
            "blockseal explain in front of the same command says why, and what would have to change"
        }
        "InvalidVolume.NotFound" => {
            "blockseal ec2 describe-volumes shows what there is; --account and --region say where"
        }
        _ => return None,
    })
}
