"""What `pipeline.files.storage` promises, kept on each kind of file system.

local (folders), object_store (S3, GCS), file_server (sftp, hdfs ...) and memory put files in place;
aside names the unfinished ones; input_file reads, retries tries again.
"""
