// Drives the endpoint with the AWS SDK for JavaScript, which reads times and errors more strictly than others do.
const assert = require("node:assert");
const kms = require("@aws-sdk/client-kms");

async function main(endpoint) {
  const options = { endpoint, region: "us-east-1", maxAttempts: 1 };
  const client = new kms.KMSClient({ ...options, credentials: { accessKeyId: "AKIAIOSFODNN7EXAMPLE", secretAccessKey: "any" } });
  const { KeyMetadata: key } = await client.send(new kms.CreateKeyCommand({ Description: "from JavaScript" }));
  assert(key.CreationDate instanceof Date && Math.abs(key.CreationDate - Date.now()) < 60_000, `${key.CreationDate}`);
  await client.send(new kms.CreateAliasCommand({ AliasName: "alias/js", TargetKeyId: key.KeyId }));
  const { Aliases } = await client.send(new kms.ListAliasesCommand({ KeyId: key.KeyId }));
  assert(Aliases[0].LastUpdatedDate instanceof Date);

  const EncryptionContext = { purpose: "test" };
  const Plaintext = new TextEncoder().encode("a secret word");
  const { CiphertextBlob } = await client.send(new kms.EncryptCommand({ KeyId: "alias/js", Plaintext, EncryptionContext }));
  const opened = await client.send(new kms.DecryptCommand({ CiphertextBlob, EncryptionContext }));
  assert.deepStrictEqual(new Uint8Array(opened.Plaintext), Plaintext);
  assert.strictEqual(opened.KeyId, key.Arn);

  await assert.rejects(client.send(new kms.DecryptCommand({ CiphertextBlob })), kms.InvalidCiphertextException);
  await client.send(new kms.DisableKeyCommand({ KeyId: key.KeyId }));
  await assert.rejects(client.send(new kms.DecryptCommand({ CiphertextBlob, EncryptionContext })), (error) => {
    assert(error instanceof kms.DisabledException);
    assert.strictEqual(error.message, `${key.Arn} is disabled.`);
    assert.strictEqual(error.$metadata.httpStatusCode, 400);
    assert(error.$metadata.requestId);
    return true;
  });
  const { DeletionDate } = await client.send(new kms.ScheduleKeyDeletionCommand({ KeyId: key.KeyId, PendingWindowInDays: 7 }));
  assert(DeletionDate instanceof Date && DeletionDate > Date.now());
  let found = 0;
  for await (const page of kms.paginateListKeys({ client, pageSize: 1 }, {})) found += page.Keys.length;
  assert.strictEqual(found, 1);
}

main(process.argv[2]).catch((error) => {
  console.error(error);
  process.exit(1);
});
