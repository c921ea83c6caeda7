#!/bin/bash
# Drives the endpoint with the AWS CLI, as a person or a script does.
set -euo pipefail
export AWS_ENDPOINT_URL=$1 AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE AWS_SECRET_ACCESS_KEY=any AWS_DEFAULT_REGION=us-east-1
export AWS_PAGER='' AWS_MAX_ATTEMPTS=1 HOME=$PWD
aws() { /usr/bin/aws --endpoint-url "$AWS_ENDPOINT_URL" --output text "$@"; }
same() { [ "$1" = "$2" ] || { printf 'got:  %s\nwant: %s\n' "$1" "$2" >&2; exit 1; }; }
# refused CODE COMMAND...: the command must end with 254 and name this error.
refused() {
  local code=$1 said status=0
  shift
  said=$(aws "$@" 2>&1) || status=$?
  [ $status -eq 254 ] && [[ $said == *"($code)"* ]] || { echo "$* ended with $status: $said" >&2; exit 1; }
}

same "$(aws sts get-caller-identity --query Arn)" arn:aws:iam::123456789012:root
key=$(aws kms create-key --description app --query KeyMetadata.KeyId)
aws kms create-alias --alias-name alias/app --target-key-id "$key"
printf 'a secret word' > plain
aws kms encrypt --key-id alias/app --plaintext fileb://plain --encryption-context a=1,b=2 --query CiphertextBlob | base64 -d > blob
same "$(aws kms decrypt --ciphertext-blob fileb://blob --encryption-context b=2,a=1 --query Plaintext | base64 -d)" 'a secret word'
refused InvalidCiphertextException kms decrypt --ciphertext-blob fileb://blob --encryption-context a=1
refused NotFoundException kms describe-key --key-id alias/none

volume=$(aws ec2 create-volume --size 1 --availability-zone us-east-1a --encrypted --kms-key-id alias/app \
  --tag-specifications 'ResourceType=volume,Tags=[{Key=Name,Value=data}]' --query VolumeId)
same "$(aws ec2 describe-volumes --filters Name=tag:Name,Values=data --query 'Volumes[].[VolumeId,State,Encrypted]')" "$volume	available	True"
refused DryRunOperation ec2 delete-volume --volume-id "$volume" --dry-run
aws ec2 delete-volume --volume-id "$volume"
refused InvalidVolume.NotFound ec2 describe-volumes --volume-ids "$volume"
refused UnsupportedOperation ec2 describe-vpcs

aws iam create-user --user-name alice --query User.Arn > user
same "$(cat user)" arn:aws:iam::123456789012:user/alice
read -r id secret < <(aws iam create-access-key --user-name alice --query 'AccessKey.[AccessKeyId,SecretAccessKey]')
same "$(AWS_ACCESS_KEY_ID=$id AWS_SECRET_ACCESS_KEY=$secret aws sts get-caller-identity --query Arn)" "$(cat user)"
AWS_ACCESS_KEY_ID=$id AWS_SECRET_ACCESS_KEY=$secret refused AccessDeniedException kms list-keys
AWS_ACCESS_KEY_ID=$id AWS_SECRET_ACCESS_KEY=wrong refused InvalidSignatureException kms list-keys
same "$(aws cloudtrail lookup-events --lookup-attributes AttributeKey=EventName,AttributeValue=CreateAlias --query 'length(Events)')" 1
/usr/bin/aws --version
