"""Operations on one table: dtypes, normalisation, rules, digests, encoding."""
