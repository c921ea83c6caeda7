//! From AWS's names to the command line's.

/// The command line's form of an AWS name: `CreateKey` is `create-key`, `DBInstanceIdentifier` is
/// `db-instance-identifier`, `TargetARNs` is `target-arns`. Follows botocore's `xform_name`.
pub fn dashed(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let acronym = plural_acronym(&letters);
    let mut text = String::with_capacity(name.len() + 4);
    for (index, letter) in letters.iter().enumerate() {
        let before = index.checked_sub(1).map(|before| letters[before]);
        let after = letters.get(index + 1);
        let starts_word = match before {
            None | Some('-') => false,
            Some(_) if index == acronym => true,
            Some(_) if index > acronym => false,
            Some(before) => {
                letter.is_ascii_uppercase()
                    && (before.is_ascii_lowercase()
                        || before.is_ascii_digit()
                        || after.is_some_and(char::is_ascii_lowercase))
            }
        };
        if starts_word {
            text.push('-');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

/// Where a closing plural of an acronym (`ARNs`) starts; past the end if there is none.
fn plural_acronym(letters: &[char]) -> usize {
    let Some((&'s', rest)) = letters.split_last() else { return letters.len() };
    let capitals = rest.iter().rev().take_while(|letter| letter.is_ascii_uppercase()).count();
    if capitals >= 2 { rest.len() - capitals } else { letters.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_aws_cli() {
        for (name, option) in [
            ("CreateKey", "create-key"),
            ("GenerateDataKeyWithoutPlaintext", "generate-data-key-without-plaintext"),
            ("KmsKeyId", "kms-key-id"),
            ("DBInstanceIdentifier", "db-instance-identifier"),
            ("CreateDBInstance", "create-db-instance"),
            ("AWSAccountId", "aws-account-id"),
            ("XksProxyURI", "xks-proxy-uri"),
            ("TargetGroupARNs", "target-group-arns"),
            ("S3BucketName", "s3-bucket-name"),
            ("EnableIAMDatabaseAuthentication", "enable-iam-database-authentication"),
            ("Iops", "iops"),
            ("DbiResourceId", "dbi-resource-id"),
            ("RestoreDBInstanceFromS3", "restore-db-instance-from-s3"),
        ] {
            assert_eq!(dashed(name), option);
        }
    }
}
