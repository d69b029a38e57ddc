"""What serving costs and whose it is: from what the gateway and the samples below tell, which know nothing of it."""
