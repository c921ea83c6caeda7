"""Encrypts and decrypts with the AWS Encryption SDK, whose data keys come from the endpoint."""

import os
import sys

os.environ.update(AWS_ENDPOINT_URL=sys.argv[1], AWS_ACCESS_KEY_ID="AKIAIOSFODNN7EXAMPLE", AWS_SECRET_ACCESS_KEY="any",
                  AWS_DEFAULT_REGION="us-east-1", AWS_MAX_ATTEMPTS="1")

import aws_encryption_sdk
import boto3
from aws_encryption_sdk.exceptions import DecryptKeyError, GenerateKeyError

kms = boto3.client("kms")
keys = [kms.create_key()["KeyMetadata"]["Arn"] for _ in range(2)]
provider = aws_encryption_sdk.StrictAwsKmsMasterKeyProvider(key_ids=keys)
client = aws_encryption_sdk.EncryptionSDKClient()
plaintext = os.urandom(100_000)
context = {"purpose": "test"}
sealed, header = client.encrypt(source=plaintext, key_provider=provider, encryption_context=context)
assert plaintext[:64] not in sealed
assert len(header.encrypted_data_keys) == 2

# Either key opens it; which context it was sealed under is part of it.
for key in keys:
    alone = aws_encryption_sdk.StrictAwsKmsMasterKeyProvider(key_ids=[key])
    opened, header = client.decrypt(source=sealed, key_provider=alone)
    assert opened == plaintext and header.encryption_context["purpose"] == "test"

# Without its key it is closed.
kms.disable_key(KeyId=keys[0])
alone = aws_encryption_sdk.StrictAwsKmsMasterKeyProvider(key_ids=keys[:1])
for refused, what in (DecryptKeyError, lambda: client.decrypt(source=sealed, key_provider=alone)), \
                     (GenerateKeyError, lambda: client.encrypt(source=b"x", key_provider=alone)):
    try:
        what()
    except refused:
        continue
    raise AssertionError(f"{refused} was expected")
opened, _ = client.decrypt(source=sealed, key_provider=aws_encryption_sdk.StrictAwsKmsMasterKeyProvider(key_ids=keys[1:]))
assert opened == plaintext
print("aws-encryption-sdk", aws_encryption_sdk.__version__)
