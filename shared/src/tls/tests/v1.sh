#!/bin/sh
# Makes the version 1 certificates of the tests: an authority and a leaf, with no extension at all.
set -e
cd "$(dirname "$0")/v1"
openssl ecparam -name prime256v1 -genkey -noout -out ca.key
openssl req -new -key ca.key -subj "/CN=v1 authority" -out ca.csr
openssl x509 -req -in ca.csr -signkey ca.key -sha256 -days 36500 -out ca.pem
openssl ecparam -name prime256v1 -genkey -noout -out leaf.key
openssl req -new -key leaf.key -subj "/CN=db.example.org" -out leaf.csr
openssl x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -sha256 -days 36500 -out leaf.pem
rm -f ca.csr leaf.csr ca.srl
