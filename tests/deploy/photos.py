"""Store a thousand photos of 50 dishes, as uploads do: `gourmious shell` reads this file."""

import hashlib
import os

from django.core.files.uploadedfile import TemporaryUploadedFile
from PIL import Image

from uploads.models import Dish, Picture

SIZE = (320, 240)


def store_photo(dish):
    with TemporaryUploadedFile("photo.jpg", "image/jpeg", 0, None) as file:
        Image.frombytes("RGB", SIZE, os.urandom(SIZE[0] * SIZE[1] * 3)).save(file, "JPEG")
        file.flush()
        file.size = file.tell()
        file.seek(0)
        file.digest = hashlib.file_digest(file, "sha256").hexdigest()
        Picture.objects.get_or_store(dish, file)


for number in range(50):
    dish = Dish.objects.create(name=f"Dish {number}", restaurant="Chez Fonfon")
    for _ in range(20):
        store_photo(dish)
