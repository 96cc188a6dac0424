"""The online store on DynamoDB."""
