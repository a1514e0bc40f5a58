output "bucket" {
  description = "The bucket's name."
  value       = aws_s3_bucket.this.bucket
}

output "arn" {
  description = "The bucket, as IAM policies name it."
  value       = aws_s3_bucket.this.arn
}

output "configuration" {
  description = "One entry of `objects.buckets`."
  value = {
    region     = var.region
    aws_region = data.aws_region.current.region
    bucket     = aws_s3_bucket.this.bucket
  }
}
